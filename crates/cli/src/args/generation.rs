//! How text is written.

use colibri_engine::generate::GenerateOptions;

/// Options of commands that write text.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Writing")]
pub(crate) struct Generation {
    /// At most so many new tokens
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// 0 takes the most probable token, more draws from more
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = temperature)]
    temperature: f32,
    /// Draw from the most probable tokens that make up this share
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = share)]
    top_p: f32,
    /// Draw from so many most probable tokens; 0 from all
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: usize,
    /// The same seed draws the same text
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Above 1, makes repetition rarer
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = penalty)]
    repetition_penalty: f32,
}

impl Generation {
    /// As the engine has it.
    pub(crate) fn options(&self) -> GenerateOptions {
        GenerateOptions {
            max_new_tokens: self.max_tokens as usize,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        }
    }
}

fn number(text: &str, holds: impl Fn(f32) -> bool, rule: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number.is_finite() && holds(number) => Ok(number),
        _ => Err(format!("it must be {rule}")),
    }
}

fn temperature(text: &str) -> Result<f32, String> {
    number(text, |x| x >= 0.0, "a number from 0 on")
}

fn share(text: &str) -> Result<f32, String> {
    number(
        text,
        |x| x > 0.0 && x <= 1.0,
        "a number above 0, and at most 1",
    )
}

fn penalty(text: &str) -> Result<f32, String> {
    number(text, |x| x > 0.0, "a number above 0")
}
