//! Chat templates, image expansion and ids, over the small checkpoints and the published files.

use colibri_models::processor::{
    ChatTemplate, Content, Error, Idefics3Processor, ImageProcessor, Message, NamedTokens,
    PreprocessorConfig, ProcessorFiles, Role, TileGrid, TileOptions, Tiles, Tokenizer,
};
use image::RgbImage;
use serde_json::Value;

use crate::golden;

/// `longest_edge` and `do_image_splitting` of a case, which differ from the checkpoint's.
fn images(files: &ProcessorFiles, case: &Value) -> ImageProcessor {
    let mut config = PreprocessorConfig::load(files).unwrap();
    if let Some(edge) = case["processor"]["longest_edge"].as_u64() {
        config.longest_edge = u32::try_from(edge).unwrap();
    }
    if let Some(split) = case["processor"]["do_image_splitting"].as_bool() {
        config.do_image_splitting = split;
    }
    ImageProcessor::new(config)
}

fn picture(name: &Value) -> RgbImage {
    let path = golden::folder().join("images").join(name.as_str().unwrap());
    image::open(path).unwrap().to_rgb8()
}

#[test]
fn prompts_of_the_small_checkpoints() {
    let mut seen = 0;
    for (path, case) in golden::cases() {
        // Idefics2's pictures and a video's frames are compared where their networks are (`golden_networks`).
        let idefics2 = case["checkpoint"].as_str().unwrap().starts_with("idefics2");
        if case["kind"] != "generate" || idefics2 || case.get("clip").is_some() {
            continue;
        }
        let files = golden::files(&case);
        let derived = golden::derived_seq_len(&case);
        let processor = Idefics3Processor::load(&files, Some(derived)).unwrap();
        let images = images(&files, &case);
        let mut grids = Vec::new();
        for (at, name) in case["images"].as_array().unwrap().iter().enumerate() {
            let tiles = images.cut(&picture(name), &TileOptions::default()).unwrap();
            let expected = &case["tiles"][at];
            assert_eq!(tiles.grid().rows, expected["rows"], "{}", path.display());
            assert_eq!(tiles.grid().cols, expected["cols"], "{}", path.display());
            assert_eq!(
                golden::sha256(tiles.as_bytes()),
                expected["sha256"],
                "{}",
                path.display()
            );
            grids.push(tiles.grid());
        }
        let messages = golden::messages(&case["messages"]).unwrap();
        let generate = case["add_generation_prompt"].as_bool().unwrap();
        let tokenizer = processor.tokenizer();
        let text = processor
            .template()
            .render_text(&messages, generate, tokenizer)
            .unwrap();
        assert_eq!(text, case["prompt"], "{}", path.display());
        let ids = processor.ids(&messages, &grids, generate).unwrap();
        assert_eq!(ids, golden::ids(&case["ids"]), "{}", path.display());
        let visual = ids.iter().filter(|&&id| id == tokenizer.image_id()).count();
        let frames: usize = grids.iter().map(TileGrid::num_frames).sum();
        assert_eq!(
            visual,
            frames * processor.image_seq_len(),
            "{}",
            path.display()
        );
        seen += 1;
    }
    assert!(seen >= 8, "{seen} cases");
}

/// Files of a published model; its tokenizer may stand under another name.
fn real(name: &str) -> Option<(ProcessorFiles, tempfile::TempDir, Value)> {
    let settings = golden::json(format!("real/{name}/settings.json"));
    let folder = golden::shared(settings["folder"].as_str().unwrap())?;
    let tokenizer = folder.join(settings["tokenizer"].as_str().unwrap());
    let named = tempfile::tempdir().unwrap();
    fs_err::copy(tokenizer, named.path().join("tokenizer.json")).unwrap();
    let files = ProcessorFiles::new(folder).with_fallback(named.path());
    Some((files, named, settings))
}

const REALS: [&str; 2] = ["smolvlm-256m", "smolvlm-instruct"];

#[test]
fn conversations_with_the_published_files() {
    for name in REALS {
        let Some((files, _named, settings)) = real(name) else {
            continue;
        };
        let processor = Idefics3Processor::load(&files, None).unwrap();
        assert_eq!(processor.image_seq_len(), settings["image_seq_len"]);
        assert_eq!(processor.tokenizer().image_id(), settings["image_token_id"]);
        assert_eq!(processor.tokenizer().vocab_size(), settings["vocabulary"]);
        let mut seen = 0;
        let conversations = golden::json(format!("real/{name}/conversations.json"));
        for case in conversations.as_array().unwrap() {
            let Some(messages) = golden::messages(&case["messages"]) else {
                continue;
            };
            let grid = |size: &Value| {
                let (width, height) = golden::size(size);
                processor
                    .images()
                    .plan(width, height, &TileOptions::default())
                    .unwrap()
                    .grid
            };
            let grids: Vec<TileGrid> = case["sizes"].as_array().unwrap().iter().map(grid).collect();
            let generate = case["add_generation_prompt"].as_bool().unwrap();
            let tokenizer = processor.tokenizer();
            let text = processor
                .template()
                .render_text(&messages, generate, tokenizer)
                .unwrap();
            assert_eq!(text, case["prompt"], "{name}");
            let ids = processor.ids(&messages, &grids, generate).unwrap();
            assert_eq!(ids, golden::ids(&case["ids"]), "{name}: {text}");
            assert_eq!(ids.len(), case["num_tokens"], "{name}: {text}");
            seen += 1;
        }
        assert!(seen >= 16, "{name}: {seen} conversations");
    }
}

#[test]
fn published_templates() {
    let conversations = golden::json("real/template-conversations.json");
    let tokenizer = small_tokenizer();
    let mut seen = 0;
    for case in golden::json("real/templates.json").as_array().unwrap() {
        let at = usize::try_from(case["conversation"].as_u64().unwrap()).unwrap();
        let Some(messages) = golden::messages(&conversations[at]) else {
            continue;
        };
        let Some(folder) = golden::shared(case["folder"].as_str().unwrap()) else {
            continue;
        };
        let template = ChatTemplate::load(&ProcessorFiles::new(folder)).unwrap();
        let generate = case["add_generation_prompt"].as_bool().unwrap();
        let text = template
            .render_text(&messages, generate, &tokenizer)
            .unwrap();
        assert_eq!(text, case["prompt"], "{}", template.path().display());
        seen += 1;
    }
    eprintln!("{seen} renderings compared");
}

fn small_checkpoint() -> ProcessorFiles {
    ProcessorFiles::new(golden::folder().join("checkpoints/smolvlm-single"))
}

fn small_tokenizer() -> Tokenizer {
    Tokenizer::load(&small_checkpoint()).unwrap()
}

#[test]
fn pictures_and_messages_must_agree() {
    let processor = Idefics3Processor::load(&small_checkpoint(), None).unwrap();
    let messages = [Message::user(2, "Compare."), Message::user(1, "And this?")];
    let image = RgbImage::new(30, 40);
    let options = TileOptions::default();
    let two = [image.clone(), image.clone()];
    let error = processor
        .process(&messages, &two, true, &options)
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::ImageCount {
                expected: 3,
                found: 2
            }
        ),
        "{error}"
    );
    let three = [image.clone(), image.clone(), image];
    let prompt = processor
        .process(&messages, &three, true, &options)
        .unwrap();
    let frames: usize = prompt.tiles.iter().map(Tiles::num_frames).sum();
    assert_eq!(
        prompt.visual_positions().count(),
        frames * processor.image_seq_len()
    );
}

#[test]
fn a_template_that_forgets_an_image_is_an_error() {
    let template =
        ChatTemplate::new("some/chat_template.jinja", "{{ messages[0]['role'] }}").unwrap();
    let messages = [Message::user(1, "What is it?")];
    let error = template
        .render_text(&messages, true, &small_tokenizer())
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::PlacedImages {
                expected: 1,
                found: 0,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("`some/chat_template.jinja`"),
        "{error}"
    );
}

#[test]
fn templates_run_as_in_transformers() {
    let tokenizer = Tokenizer::from_bytes(
        "tokenizer.json".as_ref(),
        &fs_err::read(small_checkpoint().dir.join("tokenizer.json")).unwrap(),
        NamedTokens {
            bos_token: Some("<|im_start|>".to_owned()),
            ..NamedTokens::default()
        },
    )
    .unwrap();
    let messages = [
        Message::text(Role::System, "  Be brief.\n"),
        Message::user(0, "Hi"),
    ];
    let render = |source: &str| {
        let template = ChatTemplate::new("t.jinja", source).unwrap();
        template.render_text(&messages, false, &tokenizer)
    };
    // What jinja2 3.1 gives with trim_blocks and lstrip_blocks.
    let source = "{{ bos_token }}\n{% for message in messages %}\n    {% if loop.first %}\n  \
                  {{ message['role'].upper() }}:{{ message.content[0]['text'].strip() }}\n    \
                  {% else %}\n{{ message.content[0].text | trim }}\n    {% endif %}\n{% endfor %}\n";
    assert_eq!(
        render(source).unwrap(),
        "<|im_start|>\n  SYSTEM:Be brief.\nHi\n"
    );
    assert_eq!(render("{{ tools }}{{ nothing }}x\n").unwrap(), "x");
    assert_eq!(render("{{ [1, 'é<'] | tojson }}").unwrap(), "[1, \"é<\"]");
    let year = render("{{ strftime_now('%Y') }}").unwrap();
    assert!(year.parse::<u32>().unwrap() >= 2025, "{year}");
    let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
    assert!(matches!(error, Error::Template { .. }), "{error}");
    assert!(error.to_string().contains("`t.jinja`"), "{error}");
    assert!(
        error.to_string().contains("roles must alternate"),
        "{error}"
    );
    assert!(ChatTemplate::new("t.jinja", "{% for %}").is_err());
}

#[test]
fn templates_are_found_where_transformers_finds_them() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs_err::write(dir.path().join(name), text).unwrap();
    let files = ProcessorFiles::new(dir.path());
    let source = || ChatTemplate::load(&files).map(|template| template.source().to_owned());
    let error = source().unwrap_err().to_string();
    assert!(error.contains(&dir.path().display().to_string()), "{error}");
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]}"#,
    );
    assert_eq!(source().unwrap(), "b");
    write("chat_template.jinja", "c");
    assert_eq!(source().unwrap(), "c");
    write("chat_template.json", r#"{"chat_template": "d"}"#);
    assert_eq!(source().unwrap(), "d");
    write("processor_config.json", r#"{"image_seq_len": 4}"#);
    assert_eq!(source().unwrap(), "d");
    write(
        "processor_config.json",
        r#"{"chat_template": {"only": "e"}}"#,
    );
    assert_eq!(source().unwrap(), "e");
    write(
        "processor_config.json",
        r#"{"chat_template": {"one": "e", "two": "f"}}"#,
    );
    assert!(matches!(
        source(),
        Err(Error::BadValue {
            key: "chat_template",
            ..
        })
    ));
}

#[test]
fn an_adapter_falls_back_to_its_base() {
    let (adapter, base) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = ProcessorFiles::new(adapter.path()).with_fallback(base.path());
    let write = |dir: &tempfile::TempDir, text: &str| {
        fs_err::write(dir.path().join("preprocessor_config.json"), text).unwrap();
    };
    let side = || PreprocessorConfig::load(&files).unwrap().tile_side;
    write(&base, r#"{"max_image_size": {"longest_edge": 100}}"#);
    assert_eq!(side(), 100);
    write(&adapter, r#"{"max_image_size": {"longest_edge": 200}}"#);
    assert_eq!(side(), 200);
    // transformers prefers nested settings.
    let nested = r#"{"image_processor": {"max_image_size": {"longest_edge": 300}}}"#;
    fs_err::write(adapter.path().join("processor_config.json"), nested).unwrap();
    assert_eq!(side(), 300);
}

#[test]
fn the_first_part_decides_about_the_space() {
    let processor = Idefics3Processor::load(&small_checkpoint(), None).unwrap();
    let render = |content: Vec<Content>| {
        let messages = [Message {
            role: Role::User,
            content,
        }];
        processor
            .template()
            .render_text(&messages, false, processor.tokenizer())
            .unwrap()
    };
    let text = || Content::Text("What is it?".to_owned());
    let image_first = render(vec![Content::Image, text()]);
    assert_eq!(
        image_first,
        "<|im_start|>User:<image>What is it?<end_of_utterance>\n"
    );
    let text_first = render(vec![text(), Content::Image]);
    assert_eq!(
        text_first,
        "<|im_start|>User: What is it?<image><end_of_utterance>\n"
    );
}
