//! What to do about each failure, and the word for it that programs read.
//!
//! Two flat tables over [`Error`]: every variant is listed, so a new one cannot be forgotten.

use super::error::Error;

impl Error {
    /// A stable word for this kind of failure, for programs that read our output.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ModelName { .. } => "hub_model_name",
            Self::Revision { .. } => "hub_revision",
            Self::Endpoint { .. } => "hub_endpoint",
            Self::Token { .. } => "hub_token",
            Self::Offline { .. } => "hub_offline",
            Self::OfflineIncomplete { .. } => "hub_offline_incomplete",
            Self::Client { .. } => "hub_client",
            Self::Unreachable { .. } => "hub_unreachable",
            Self::Unauthorized { .. } => "hub_unauthorized",
            Self::Gated { .. } => "hub_gated",
            Self::ModelNotFound { .. } => "hub_model_not_found",
            Self::RevisionNotFound { .. } => "hub_revision_not_found",
            Self::FileNotFound { .. } => "hub_file_not_found",
            Self::Status { .. } => "hub_status",
            Self::Redirect { .. } => "hub_redirect",
            Self::Answer { .. } | Self::AnswerField { .. } => "hub_answer",
            Self::TooLarge { .. } => "hub_too_large",
            Self::UnsafeFileName { .. } => "hub_unsafe_file_name",
            Self::Index { .. } => "hub_index",
            Self::MissingShard { .. } => "hub_missing_shard",
            Self::OnlyPickles { .. } => "hub_only_pickles",
            Self::NoWeights { .. } => "hub_no_weights",
            Self::CutConnection { .. } => "hub_cut_connection",
            Self::Range { .. } => "hub_range",
            Self::WrongLength { .. } => "hub_wrong_length",
            Self::WrongChecksum { .. } => "hub_wrong_checksum",
            Self::DiskFull { .. } => "hub_disk_full",
            Self::Io { .. } => "hub_io",
            Self::Interrupted { .. } => "hub_interrupted",
        }
    }

    /// The next step for the person who reads the message, where there is one.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::ModelName { .. } => {
                "a hub name looks like `HuggingFaceTB/SmolVLM-256M-Instruct` or `owner/name@revision`; \
                 for a folder, give a path that exists"
                    .to_owned()
            }
            Self::Revision { .. } => {
                "give a branch, a tag or a commit of 40 hexadecimal digits".to_owned()
            }
            Self::Endpoint { .. } => {
                "set HF_ENDPOINT to an address such as `https://huggingface.co`, or unset it".to_owned()
            }
            Self::Token { .. } => {
                "copy the token again from https://huggingface.co/settings/tokens".to_owned()
            }
            Self::Offline { name, held, .. } => {
                let mut hint = String::new();
                if let Some(commit) = held.first() {
                    hint = format!("the cache holds other commits: ask for `{name}@{commit}`; or ");
                }
                hint + &format!(
                    "run `colibri models pull {name}` on a machine with a network and copy the cache, \
                     or give a folder; unset HF_HUB_OFFLINE to fetch it here"
                )
            }
            Self::OfflineIncomplete { name, .. } => format!(
                "run `colibri models pull {name}` with HF_HUB_OFFLINE unset: only what is missing is \
                 fetched; or give a folder"
            ),
            Self::Client { .. } => {
                "install the system's CA certificates (package `ca-certificates`)".to_owned()
            }
            Self::Unreachable { .. } => {
                "check the network and HTTPS_PROXY, or set HF_ENDPOINT to a mirror; without a network, \
                 run `colibri models pull owner/name` elsewhere and copy the cache, or give a folder"
                    .to_owned()
            }
            Self::Unauthorized { had_token: true, .. } => {
                "the token has ended or is wrong: make a new one at \
                 https://huggingface.co/settings/tokens and set HF_TOKEN, or unset it for public models"
                    .to_owned()
            }
            Self::Unauthorized { had_token: false, .. } => {
                "check the name; if the model is private, set HF_TOKEN to a token that may read it"
                    .to_owned()
            }
            Self::Gated { page, .. } => {
                format!("accept the licence at {page} and set HF_TOKEN to a token of that account")
            }
            Self::ModelNotFound { had_token, .. } => {
                let mut hint = "check the spelling of `owner/name`".to_owned();
                if !had_token {
                    hint += "; if the model is private, set HF_TOKEN";
                }
                hint
            }
            Self::RevisionNotFound { name, .. } => {
                format!("leave the revision out for the newest, or give a branch, tag or commit of `{name}`")
            }
            Self::Status { status: 429, .. } => {
                "the hub asks for fewer requests: wait a few minutes, or set HF_TOKEN for a higher limit"
                    .to_owned()
            }
            Self::Status { .. } => "try again later, or set HF_ENDPOINT to a mirror".to_owned(),
            Self::OnlyPickles { .. } => {
                "pickle files can run code when they are opened; convert the model to safetensors, or \
                 choose one that has them"
                    .to_owned()
            }
            Self::NoWeights { .. } => "choose a model with safetensors weights".to_owned(),
            Self::CutConnection { .. } | Self::Range { .. } => {
                "run the same command again: it goes on where it stopped".to_owned()
            }
            Self::WrongLength { .. } | Self::WrongChecksum { .. } => {
                "the bytes were thrown away; run the command again, and if it stays so, the mirror or a \
                 proxy on the way changes files"
                    .to_owned()
            }
            Self::DiskFull { .. } => {
                "free some space, or set HF_HOME to a folder on a larger disk; what has arrived is kept"
                    .to_owned()
            }
            Self::Io { .. } => {
                "check that the cache folder can be read and written, or set HF_HOME to one that can"
                    .to_owned()
            }
            Self::FileNotFound { .. }
            | Self::Redirect { .. }
            | Self::Answer { .. }
            | Self::AnswerField { .. }
            | Self::TooLarge { .. }
            | Self::UnsafeFileName { .. }
            | Self::Index { .. }
            | Self::MissingShard { .. }
            | Self::Interrupted { .. } => return None,
        };
        Some(hint)
    }
}
