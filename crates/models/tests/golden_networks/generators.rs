//! Conversations: ids, pixels, stages, what is generated.

use std::ops::ControlFlow;

use candle_core::{DType, Device};
use colibri_models::{
    KvPrecision, Placement,
    generate::{GenerateOptions, StopReason},
    generators::Request,
    registry::LoadOptions,
};
use colibri_testkit::golden::{Case, expand};

use crate::support::{
    Recorder, cases, generator, images, messages, on_cpu, retriever, sha256, tile_options,
};

fn generate(case: &Case, options: &LoadOptions) {
    let model = generator(case, options);
    let tiles = tile_options(case, model.processor().images().config().tile_side);
    let messages = messages(case, &model.processor().video());
    let images = images(case);
    let prompt = model
        .processor()
        .process(&messages, &images, true, &tiles)
        .unwrap();
    assert_eq!(prompt.ids, expand(&case.ids), "{}: ids", case.label());
    assert_eq!(prompt.tiles.len(), case.tiles.len(), "{}", case.label());
    for (tiles, expected) in prompt.tiles.iter().zip(&case.tiles) {
        assert_eq!(
            sha256(tiles.as_bytes()),
            expected.sha256,
            "{}: pixels",
            case.label()
        );
        let sizes: Vec<[u32; 2]> = tiles.frames().map(|f| [f.width, f.height]).collect();
        if !expected.sizes.is_empty() {
            assert_eq!(sizes, expected.sizes, "{}: sizes", case.label());
        }
    }

    let expected = case.generated.as_ref().unwrap();
    let generate_options = GenerateOptions {
        max_new_tokens: 32,
        ..GenerateOptions::default()
    };
    let request = Request {
        messages: &messages,
        images: &images,
        options: &generate_options,
    };
    let mut recorder = Recorder::default();
    let mut streamed = String::new();
    let mut on_step = |step: colibri_models::generate::Step<'_>| {
        if let colibri_models::generate::Step::Text(text) = step {
            streamed.push_str(text);
        }
        ControlFlow::Continue(())
    };
    let completion = model
        .generate_traced(&request, &tiles, &mut on_step, &mut recorder)
        .unwrap();
    recorder.compare(case);
    assert_eq!(
        completion.ids,
        expected.ids,
        "{}: generated ids",
        case.label()
    );
    assert_eq!(completion.text, expected.text, "{}: text", case.label());
    assert_eq!(streamed, expected.text, "{}: streamed text", case.label());
    let stop = if expected.stopped == "eos" {
        StopReason::EndOfTurn
    } else {
        StopReason::Length
    };
    assert_eq!(completion.stop, stop, "{}", case.label());
}

#[test]
fn generators_equal_transformers() {
    for case in cases(&["generate"]) {
        generate(&case, &on_cpu());
    }
}

/// The same source on candle's operations, which CUDA and Metal run.
#[test]
fn generators_equal_transformers_through_candle() {
    for case in cases(&["generate"]) {
        generate(
            &case,
            &LoadOptions::new(Placement::candle(Device::Cpu, DType::F32)),
        );
    }
}

/// Keys and values in bytes, weights in f32: all stages stay close to transformers'. A byte rounds by 2⁻⁸ of the greatest
/// value of a head, errors of many keys average out, and every layer adds its own: 3.3 % in the logits of the small
/// Idefics2.
#[test]
fn generators_stay_close_with_keys_and_values_in_bytes() {
    const TOLERANCE: f64 = 0.05;
    for case in cases(&["generate"]) {
        let options = LoadOptions {
            kv: KvPrecision::Int8,
            ..on_cpu()
        };
        let model = generator(&case, &options);
        let tiles = tile_options(&case, model.processor().images().config().tile_side);
        let messages = messages(&case, &model.processor().video());
        let request = Request {
            messages: &messages,
            images: &images(&case),
            options: &GenerateOptions {
                max_new_tokens: 8,
                ..GenerateOptions::default()
            },
        };
        let mut recorder = Recorder::default();
        let mut go_on = |_: colibri_models::generate::Step<'_>| ControlFlow::Continue(());
        let completion = model
            .generate_traced(&request, &tiles, &mut go_on, &mut recorder)
            .unwrap();
        recorder.compare_within(&case, TOLERANCE);
        assert!(completion.new_tokens > 0);
    }
}

#[test]
fn work_stops_when_asked() {
    for case in cases(&["page"]) {
        let error = retriever(&case, &on_cpu())
            .model()
            .embed_page(&images(&case)[0], &mut |done, total| done + 1 < total)
            .unwrap_err();
        assert!(matches!(error, colibri_models::Error::Cancelled));
    }

    let case = cases(&["generate"])
        .into_iter()
        .find(|case| case.generated.as_ref().unwrap().stopped == "length")
        .unwrap();
    let model = generator(&case, &on_cpu());
    let tiles = tile_options(&case, model.processor().images().config().tile_side);
    let options = GenerateOptions::default();
    let messages = messages(&case, &model.processor().video());
    let images = images(&case);
    let request = Request {
        messages: &messages,
        images: &images,
        options: &options,
    };
    let mut texts = 0;
    let mut on_step = |step: colibri_models::generate::Step<'_>| {
        texts += usize::from(matches!(step, colibri_models::generate::Step::Text(_)));
        if texts == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let completion = model
        .generate_traced(&request, &tiles, &mut on_step, &mut colibri_models::NoTrace)
        .unwrap();
    assert_eq!(completion.stop, StopReason::Cancelled);
    assert!(
        case.generated
            .unwrap()
            .text
            .starts_with(completion.text.trim_end_matches('\u{fffd}'))
    );
}
