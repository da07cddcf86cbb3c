//! Images, prompts and tokens as the checkpoints expect them.
