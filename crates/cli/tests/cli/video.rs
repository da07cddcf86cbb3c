//! Conversations with several pictures, turns from a file, and videos.

use std::process::{Command, Stdio};

use image::RgbImage;
use serde_json::{Value, json};

use crate::{models::SMALL, support::Home};

/// Whether ffmpeg is here; says so where it is not.
#[expect(
    clippy::print_stderr,
    reason = "a test that cannot run says so by name"
)]
fn has_ffmpeg() -> bool {
    let found = Command::new("ffmpeg")
        .arg("-version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        eprintln!("skipped: a_clip_is_watched_and_indexed (no ffmpeg)");
    }
    found
}

/// A clip of `seconds` s at 10 frames a second, made by ffmpeg from its own test pattern.
fn clip(home: &Home, name: &str, seconds: u32) {
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i"])
        .arg(format!("testsrc=size=96x64:rate=10:duration={seconds}"))
        .args(["-c:v", "mpeg4", "-pix_fmt", "yuv420p", "-y"])
        .arg(home.path(name))
        .status()
        .unwrap();
    assert!(made.success());
}

fn frames(home: &Home, folder: &str, number: u8) {
    fs_err::create_dir(home.path(folder)).unwrap();
    for at in 0..number {
        let picture = RgbImage::from_pixel(20, 10, image::Rgb([at * 20, 0, 0]));
        picture
            .save(home.path(folder).join(format!("{at:03}.png")))
            .unwrap();
    }
}

fn done(events: &[Value]) -> Vec<&Value> {
    events
        .iter()
        .filter(|event| event["event"] == "done")
        .collect()
}

#[test]
fn turns_of_a_file_are_answered_and_gone_on_from() {
    let home = Home::new();
    let generator = home.generator();
    let talk = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [
            {"type": "text", "text": "Compare "},
            {"type": "image", "path": "documents/chart.png"},
            {"type": "text", "text": " with "},
            {"type": "image_url", "image_url": {"url": "documents/chart.png"}}]}]);
    fs_err::write(home.path("talk.json"), talk.to_string()).unwrap();
    let with = |rest: &[&'static str]| {
        let base = [
            "--generator",
            &generator,
            "--max-tokens",
            "3",
            "--json",
            "--messages",
            "talk.json",
        ];
        [
            rest,
            &base.map(|text| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) }),
            &SMALL,
        ]
        .concat()
    };
    let once = home.run(with(&["generate"])).exits(0).last();
    assert_eq!(once["new_tokens"], 3);
    // A prompt behind them is one turn more.
    let more = home.run(with(&["generate", "And now?"])).exits(0).last();
    assert!(more["prompt_tokens"].as_u64() > once["prompt_tokens"].as_u64());
    // Uncut pictures are fewer tokens.
    let whole = home.run(with(&["generate", "--no-split"])).exits(0).last();
    assert!(whole["prompt_tokens"].as_u64() < once["prompt_tokens"].as_u64());
    // The chat answers them first, then what is typed.
    let events = home
        .run_with(with(&["chat"]), "And now?\n", &[])
        .exits(0)
        .json();
    let done = done(&events);
    assert_eq!(done.len(), 2);
    assert_eq!(done[0]["prompt_tokens"], once["prompt_tokens"]);
    assert!(done[1]["prompt_tokens"].as_u64() > more["prompt_tokens"].as_u64());

    fs_err::write(home.path("talk.json"), "[{\"role\": \"user\"}]").unwrap();
    let said = home.run(with(&["generate"])).exits(1);
    assert!(
        said.stderr
            .contains("`talk.json` is no conversation: turn 1: `content` is neither"),
        "{}",
        said.stderr
    );
}

#[test]
fn words_alone_need_no_index() {
    let home = Home::empty();
    let generator = home.generator();
    let options = [
        "chat",
        "--no-index",
        "--generator",
        &generator,
        "--max-tokens",
        "2",
        "--json",
    ];
    let options = [&options[..], &SMALL].concat();
    let events = home
        .run_with(&options, "Hello\nAgain\n", &[])
        .exits(0)
        .json();
    let done = done(&events);
    assert_eq!(done.len(), 2);
    assert!(done[1]["prompt_tokens"].as_u64() > done[0]["prompt_tokens"].as_u64());
}

#[test]
fn a_folder_of_frames_is_a_video() {
    let home = Home::empty();
    let generator = home.generator();
    frames(&home, "frames", 4);
    let options = ["--generator", &generator, "--max-tokens", "2", "--json"];
    let options = [&options[..], &SMALL].concat();
    let shown = [
        &["generate", "What moves?", "--video", "frames"],
        &options[..],
    ]
    .concat();
    let four = home.run(&shown).exits(0).last();
    fs_err::remove_file(home.path("frames/003.png")).unwrap();
    let three = home.run(&shown).exits(0).last();
    assert!(four["prompt_tokens"].as_u64() > three["prompt_tokens"].as_u64());
    let chat = [&["chat"], &options[..]].concat();
    let events = home
        .run_with(&chat, "/video frames\nWhat moves?\n", &[])
        .exits(0)
        .json();
    assert_eq!(done(&events)[0]["prompt_tokens"], three["prompt_tokens"]);
    fs_err::write(home.path("notes.txt"), "no video").unwrap();
    let said = home
        .run([
            "generate",
            "What?",
            "--video",
            "notes.txt",
            "--generator",
            &generator,
        ])
        .exits(1);
    assert!(
        said.stderr.contains("`notes.txt` is neither a video"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_video_without_ffmpeg_says_what_to_do() {
    let home = Home::empty();
    let generator = home.generator();
    fs_err::write(
        home.path("clip.mp4"),
        b"\0\0\0\x20ftypisom\0\0\x02\0isommp41....",
    )
    .unwrap();
    // The program's environment has no PATH that leads to it.
    let environment = [("PATH", "/nowhere")];
    let options = [
        "generate",
        "What?",
        "--video",
        "clip.mp4",
        "--generator",
        &generator,
    ];
    let said = home.run_with(options, "", &environment).exits(1);
    assert!(
        said.stderr
            .contains("`clip.mp4` is a video, which `ffprobe` is needed to read")
            && said.stderr.contains("hint: install ffmpeg"),
        "{}",
        said.stderr
    );
    // Other documents are indexed all the same.
    let said = home
        .run_with(["index", "clip.mp4"], "", &environment)
        .exits(1);
    assert!(
        said.stderr.contains("which `ffprobe` is needed"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_clip_is_watched_and_indexed() {
    if !has_ffmpeg() {
        return;
    }
    let home = Home::empty();
    let generator = home.generator();
    clip(&home, "clip.mp4", 3);
    let path = std::env::var("PATH").unwrap();
    let environment = [("PATH", path.as_str())];
    let options = [
        "generate",
        "What moves?",
        "--video",
        "clip.mp4",
        "--generator",
        &generator,
    ];
    let options = [&options[..], &["--max-tokens", "2", "--verbose"], &SMALL].concat();
    let said = home.run_with(&options, "", &environment).exits(0);
    // One frame a second.
    assert!(
        said.stderr.contains("3 frames of a video of 3.0 s"),
        "{}",
        said.stderr
    );
    // Pages are frames, one a second.
    let looking = [environment[0], ("COLIBRI_RETRIEVER", "auto")];
    let indexed = home
        .run_with(["index", "clip.mp4", "--json"], "", &looking)
        .exits(0);
    assert_eq!(indexed.last()["pages"], 3, "{}", indexed.stdout);
    let listed = home.run(["list", "--json"]).exits(0).last();
    assert_eq!(
        listed["documents"][0]["metadata"]["seconds_per_page"], 1.0,
        "{listed}"
    );
    // A citation says when.
    let ask = &["ask", "coloured bars", "--mode", "visual"][..];
    let by_look = home.run_with(ask, "", &looking).exits(0);
    assert!(
        by_look.stdout.contains("clip.mp4 p.") && by_look.stdout.contains(", 0:0"),
        "{by_look}"
    );
    let more = ["--generator", &generator, "--max-tokens", "2", "--json"];
    let asked = [ask, &more].concat();
    let asked = home.run_with(asked, "", &looking).exits(0).last();
    let cited = &asked["citations"][0];
    let page = cited["page"].as_u64().unwrap();
    assert_eq!(cited["seconds"].as_u64(), Some(page - 1), "{asked}");
    // Damage is told, not suffered.
    let whole = fs_err::read(home.path("clip.mp4")).unwrap();
    fs_err::write(home.path("cut.mp4"), &whole[..200]).unwrap();
    let said = home
        .run_with(
            [
                "generate",
                "What?",
                "--video",
                "cut.mp4",
                "--generator",
                &generator,
            ],
            "",
            &environment,
        )
        .exits(1);
    assert!(said.stderr.contains("cut.mp4"), "{}", said.stderr);
}
