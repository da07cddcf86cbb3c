//! Pages and questions: ids, pixels, stages, rows, scores.

use candle_core::{DType, Device};
use colibri_models::{Placement, Precision, registry::LoadOptions, retrievers::Rows};
use colibri_testkit::golden::{Case, cosine, expand};

use crate::support::{ROW_COSINE, Recorder, cases, golden, on_cpu, retriever, sha256};

fn embed(case: &Case, options: &LoadOptions) -> Rows {
    let model = retriever(case, options);
    let mut recorder = Recorder::default();
    let rows = if case.kind == "page" {
        let prompt = model.document(case);
        assert_eq!(prompt.ids, expand(&case.ids), "{}: ids", case.label());
        assert_eq!(
            sha256(prompt.tiles.as_bytes()),
            case.tiles[0].sha256,
            "{}: pixels",
            case.label()
        );
        let embedding = model.embed_page(case, &mut recorder);
        assert_eq!(embedding.geometry.len(), prompt.ids.len());
        embedding.rows
    } else {
        assert_eq!(
            model.query_ids(case),
            expand(&case.ids),
            "{}: ids",
            case.label()
        );
        model.embed_query(case, &mut recorder)
    };
    recorder.compare(case);
    for (found, expected) in rows
        .values
        .chunks_exact(128)
        .zip(case.tensors()["rows"].chunks_exact(128))
    {
        if case
            .stages
            .iter()
            .any(|stage| stage.name == "rows" && stage.row_step == 1)
        {
            assert!(cosine(found, expected) >= ROW_COSINE, "{}", case.label());
        }
    }
    rows
}

#[test]
fn retrievers_equal_colpali_engine() {
    for case in cases(&["page", "query"]) {
        embed(&case, &on_cpu());
    }
}

#[test]
fn retrievers_equal_colpali_engine_through_candle() {
    for case in cases(&["page", "query"]) {
        embed(
            &case,
            &LoadOptions::new(Placement::candle(Device::Cpu, DType::F32)),
        );
    }
}

#[test]
fn a_merged_adapter_gives_the_same_rows() {
    for case in cases(&["page", "query"]) {
        embed(
            &case,
            &LoadOptions {
                merge_adapter: true,
                ..on_cpu()
            },
        );
    }
}

#[test]
fn every_prompt_version_gives_its_ids() {
    for case in cases(&["page", "query"]) {
        for (version, expected) in &case.prompt_versions {
            let mut case = case.clone();
            case.prompt_version = Some(version.clone());
            let model = retriever(&case, &on_cpu());
            let ids = if case.kind == "page" {
                model.document(&case).ids
            } else {
                model.query_ids(&case)
            };
            assert_eq!(ids, expand(&expected.ids), "{} {version}", case.label());
        }
    }
}

/// The reference padded two pages of different length to one batch; its scores are those of our rows,
/// which were computed one page at a time.
#[test]
fn scores_equal_those_of_a_padded_batch() {
    for batch in cases(&["batch"]) {
        let folder = golden().join("cases").join(batch.adapter.as_ref().unwrap());
        let rows =
            |name: &String| embed(&Case::load(&folder.join(format!("{name}.json"))), &on_cpu());
        let pages: Vec<Rows> = batch.pages.iter().map(rows).collect();
        for (query, scores) in batch.queries.iter().map(rows).zip(&batch.scores) {
            for (page, expected) in pages.iter().zip(scores) {
                let dot = |q: &[f32], d: &[f32]| q.iter().zip(d).map(|(a, b)| a * b).sum::<f32>();
                let best = |q: &[f32]| {
                    page.values
                        .chunks_exact(128)
                        .map(|d| dot(q, d))
                        .fold(f32::MIN, f32::max)
                };
                let score: f32 = query.values.chunks_exact(128).map(best).sum();
                assert!(
                    (score - expected).abs() < 1e-3,
                    "{}: {score} {expected}",
                    batch.label()
                );
            }
        }
    }
}

#[test]
fn lower_precisions_point_the_same_way() {
    // Random weights are the hard case: nothing in them is redundant. The receipts on real shapes are in
    // docs/models.md; here the paths must be right, not the last percent.
    for (precision, least) in [
        (Precision::Bf16, 0.99),
        (Precision::Int8, 0.95),
        (Precision::Int4, 0.7),
    ] {
        for case in cases(&["page"]) {
            let expected = embed(&case, &on_cpu());
            let model = retriever(&case, &LoadOptions::new(Placement::cpu(precision)));
            let found = model.embed_page(&case, &mut colibri_models::NoTrace);
            let cosines = found
                .rows
                .values
                .chunks_exact(128)
                .zip(expected.values.chunks_exact(128))
                .map(|(a, b)| cosine(a, b));
            let mean = cosines.sum::<f64>() / expected.num_rows() as f64;
            assert!(mean > least, "{} {precision:?}: {mean}", case.label());
        }
    }
}
