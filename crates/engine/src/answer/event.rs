//! What an answer is made of while it comes into being; the same names in the terminal, in JSON lines and
//! in server-sent events.

use crate::{Region, retrieve::PageHit};

/// One event; serialised as one line of `ask --json`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum AnswerEvent {
    /// What is being done.
    Status {
        /// `retrieve`, `look`, `read` or `note`.
        stage: &'static str,
        /// In words.
        message: String,
    },
    /// The pages the answer is drawn from.
    Evidence {
        /// The best first.
        pages: Vec<EvidencePage>,
    },
    /// More of the answer.
    Token {
        /// Whole characters.
        text: String,
    },
    /// A page the answer rests on.
    Citation(Citation),
    /// The answer is complete.
    Done(Done),
    /// It could not be completed.
    Failed {
        /// In words, with causes.
        error: String,
        /// A name that stays the same between versions.
        code: &'static str,
        /// What to do next.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

impl AnswerEvent {
    /// The event for an error.
    pub fn failed(error: &crate::Error) -> Self {
        Self::Failed {
            error: crate::chain(error),
            code: error.code(),
            hint: error.hint(),
        }
    }
}

/// A page given to the generator.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct EvidencePage {
    /// From 1.
    pub rank: u32,
    /// Path of the document.
    pub document: String,
    /// Number of the page, from 1.
    pub page: u32,
    /// The score of the search.
    pub score: f32,
    /// MaxSim, if the page is among those found by their rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visual: Option<f32>,
    /// BM25, if the page is among those found by their text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_score: Option<f32>,
    /// Where on the page.
    pub regions: Vec<Region>,
    /// The part of its text that fits the question best.
    pub text: String,
}

impl From<&PageHit> for EvidencePage {
    fn from(found: &PageHit) -> Self {
        Self {
            rank: found.hit.rank,
            document: found.hit.document.clone(),
            page: found.hit.page,
            score: found.hit.score,
            visual: found.hit.visual,
            text_score: found.hit.text_score,
            regions: found.regions.clone(),
            text: found.hit.text.clone(),
        }
    }
}

/// A page an answer points to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Citation {
    /// Path of the document.
    pub document: String,
    /// Number of the page, from 1.
    pub page: u32,
    /// Of a page of a video, the moment it shows: whole seconds from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

impl Citation {
    /// Where in the document, for people: `p.3`, and of a video its time, `p.3, 0:02`.
    pub fn place(&self) -> String {
        let Some(seconds) = self.seconds else {
            return format!("p.{}", self.page);
        };
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        match minutes / 60 {
            0 => format!("p.{}, {minutes}:{seconds:02}", self.page),
            hours => format!("p.{}, {hours}:{:02}:{seconds:02}", self.page, minutes % 60),
        }
    }
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Done {
    /// The whole text.
    pub answer: String,
    /// The pages it points to.
    pub citations: Vec<Citation>,
    /// Who wrote it: a generator's name, or `quotes`.
    pub generator: String,
    /// Why it ended, where a generator wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<colibri_models::generate::StopReason>,
    /// Tokens read and written, where a generator wrote it.
    pub prompt_tokens: usize,
    /// Tokens written.
    pub new_tokens: usize,
    /// How long the parts took.
    pub timings_ms: Timings,
    /// Greatest resident memory of this process so far.
    pub peak_memory_bytes: u64,
    /// Where it went.
    pub memory: crate::memory::Used,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Timings {
    /// Finding pages, loading the retriever included.
    pub retrieve: f64,
    /// Loading the generator and drawing the pages.
    pub prepare: f64,
    /// From there to the first piece of text.
    pub first_token: f64,
    /// From one token to the next, on average; 0 where fewer than two were written.
    pub a_token: f64,
    /// Everything.
    pub total: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_a_video_is_a_time() {
        let place = |seconds| {
            let document = "clip.mp4".to_owned();
            let citation = Citation {
                document,
                page: 7,
                seconds,
            };
            citation.place()
        };
        assert_eq!(place(None), "p.7");
        assert_eq!(place(Some(6)), "p.7, 0:06");
        assert_eq!(place(Some(83)), "p.7, 1:23");
        assert_eq!(place(Some(3723)), "p.7, 1:02:03");
    }
}
