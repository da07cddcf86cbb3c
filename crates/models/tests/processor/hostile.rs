//! Broken and hostile files: one error each, which names the file.

use colibri_models::processor::{
    ChatTemplate, Error, Idefics3Processor, NamedTokens, PreprocessorConfig, ProcessorConfig,
    ProcessorFiles, Tokenizer,
};

use crate::golden;

fn tokenizer_json() -> Vec<u8> {
    let path = golden::folder().join("checkpoints/smolvlm-text/tokenizer.json");
    fs_err::read(path).unwrap()
}

fn read(bytes: &[u8]) -> Result<Tokenizer, Error> {
    Tokenizer::from_bytes(
        "some/tokenizer.json".as_ref(),
        bytes,
        NamedTokens::default(),
    )
}

#[test]
fn a_broken_tokenizer_names_its_file() {
    let whole = tokenizer_json();
    assert!(read(&whole).is_ok());
    for cut in [0, 1, 100, whole.len() / 2, whole.len() - 2] {
        let error = read(&whole[..cut]).unwrap_err();
        assert!(matches!(error, Error::Tokenizer { .. }), "{error}");
        assert!(
            error.to_string().contains("`some/tokenizer.json`"),
            "{error}"
        );
    }
    for text in [
        "null",
        "[]",
        "{}",
        "{\"model\": {}}",
        "{\"version\": \"9\"}",
        "\u{0}",
    ] {
        assert!(read(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn changed_bytes_never_panic() {
    let whole = tokenizer_json();
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize
    };
    let mut broken = 0;
    for _ in 0..60 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            let at = next() % bytes.len();
            bytes[at] = b"0{}[]\",:-9 x"[next() % 12];
        }
        match read(&bytes) {
            Ok(tokenizer) => assert!(tokenizer.encode_text("some words 12").is_ok()),
            Err(_) => broken += 1,
        }
    }
    assert!(broken > 0);
}

#[test]
fn missing_tokens_are_named() {
    let text = String::from_utf8(tokenizer_json()).unwrap();
    let without = text.replace("\"<image>\"", "\"<picture>\"");
    let error = read(without.as_bytes()).unwrap_err().to_string();
    assert!(
        error.contains("`<image>`") && error.contains("`some/tokenizer.json`"),
        "{error}"
    );
}

#[test]
fn padding_and_truncation_of_the_file_are_ignored() {
    let text = String::from_utf8(tokenizer_json()).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["truncation"] = serde_json::json!({
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0
    });
    json["padding"] = serde_json::json!({
        "strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": null,
        "pad_id": 2, "pad_type_id": 0, "pad_token": "<|im_end|>"
    });
    let words = "one two three four five six";
    let expected = read(text.as_bytes()).unwrap().encode_text(words).unwrap();
    let found = read(json.to_string().as_bytes())
        .unwrap()
        .encode_text(words)
        .unwrap();
    assert!(expected.len() > 3);
    assert_eq!(found, expected);
}

#[test]
fn special_tokens_that_the_file_calls_ordinary_are_special() {
    let text = String::from_utf8(tokenizer_json()).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    for token in json["added_tokens"].as_array_mut().unwrap() {
        if token["content"] == "<image>" {
            token["special"] = serde_json::Value::from(false);
        }
    }
    let tokenizer = read(json.to_string().as_bytes()).unwrap();
    assert!(tokenizer.is_special(tokenizer.image_id()));
    assert!(
        !tokenizer
            .encode_text("<image>")
            .unwrap()
            .contains(&tokenizer.image_id())
    );
}

#[test]
fn missing_and_broken_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let files = ProcessorFiles::new(dir.path());
    let shown = dir.path().display().to_string();
    let error = Idefics3Processor::load(&files, None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`preprocessor_config.json`") && error.contains(&shown),
        "{error}"
    );
    let error = Tokenizer::load(&files).unwrap_err().to_string();
    assert!(
        error.contains("`tokenizer.json`") && error.contains(&shown),
        "{error}"
    );
    let error = ProcessorConfig::image_seq_len(&files, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("`processor_config.json`"), "{error}");

    fs_err::write(dir.path().join("preprocessor_config.json"), "{\"size\": ").unwrap();
    let error = PreprocessorConfig::load(&files).unwrap_err();
    assert!(matches!(error, Error::Json { .. }), "{error}");
    assert!(error.to_string().contains(&shown), "{error}");

    fs_err::write(dir.path().join("chat_template.jinja"), [0xFF, 0xFE]).unwrap();
    assert!(matches!(
        ChatTemplate::load(&files),
        Err(Error::NotText { .. })
    ));

    let file = fs_err::File::create(dir.path().join("tokenizer.json")).unwrap();
    file.set_len(1 << 30).unwrap();
    let error = Tokenizer::load(&files).unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                found: 0x4000_0000,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn image_seq_len_must_be_what_the_network_makes() {
    let dir = tempfile::tempdir().unwrap();
    let files = ProcessorFiles::new(dir.path());
    assert_eq!(
        ProcessorConfig::image_seq_len(&files, Some(81)).unwrap(),
        81
    );
    fs_err::write(
        dir.path().join("processor_config.json"),
        "{\"image_seq_len\": 64}",
    )
    .unwrap();
    assert_eq!(ProcessorConfig::image_seq_len(&files, None).unwrap(), 64);
    assert_eq!(
        ProcessorConfig::image_seq_len(&files, Some(64)).unwrap(),
        64
    );
    let error = ProcessorConfig::image_seq_len(&files, Some(81))
        .unwrap_err()
        .to_string();
    assert!(error.contains("64") && error.contains("81"), "{error}");
}
