//! The words around the pages that a generator is given.

use std::fmt::Write as _;

use colibri_models::processor::{Content, Message, Role};

/// What is said when the pages do not hold the answer.
pub(super) const NOT_THERE: &str = "Not in these documents.";

/// Characters of a page's text given beside its picture: about a thousand tokens.
const TEXT_CHARACTERS: usize = 4000;

/// The turn that asks `question` about pages (their texts, where wanted), pictures first as the models were
/// trained.
pub(super) fn question(
    question: &str,
    num_pages: usize,
    texts: &[String],
    instructions: Option<&str>,
) -> Message {
    let mut words = String::new();
    for (number, text) in texts.iter().enumerate() {
        let cut: String = text.chars().take(TEXT_CHARACTERS).collect();
        if !cut.trim().is_empty() {
            writeln!(words, "Text of page {}:\n{cut}\n", number + 1).expect("a string takes text");
        }
    }
    if num_pages > 0 {
        let pages = if num_pages == 1 {
            "the page"
        } else {
            "the pages"
        };
        writeln!(
            words,
            "Answer from {pages} above. If the answer is not there, say \"{NOT_THERE}\""
        )
        .expect("a string takes text");
    }
    if let Some(instructions) = instructions {
        words.push_str(instructions.trim());
        words.push('\n');
    }
    words.push_str(question.trim());
    turn(num_pages, words)
}

/// A turn that asks `question` about pages and says nothing else, for a model that knows nothing but questions.
pub(super) fn bare(question: &str, num_pages: usize) -> Message {
    turn(num_pages, question.trim().to_owned())
}

/// The user's: pictures, then words.
fn turn(num_pages: usize, words: String) -> Message {
    let mut content = vec![Content::Image; num_pages];
    content.push(Content::Text(words));
    Message {
        role: Role::User,
        content,
    }
}

/// A turn of the model's, as history.
pub(super) fn reply(text: &str) -> Message {
    Message {
        role: Role::Assistant,
        content: vec![Content::Text(text.trim().to_owned())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_come_first_and_the_question_last() {
        let message = question(
            " Who signed? ",
            2,
            &["Signed, Ada".to_owned(), " ".to_owned()],
            Some("Be brief."),
        );
        assert_eq!(message.content[..2], [Content::Image, Content::Image]);
        let Content::Text(text) = &message.content[2] else {
            panic!()
        };
        assert!(
            text.starts_with("Text of page 1:\nSigned, Ada\n\nAnswer from the pages above."),
            "{text}"
        );
        assert!(
            text.ends_with("Be brief.\nWho signed?") && !text.contains("page 2"),
            "{text}"
        );
    }
}
