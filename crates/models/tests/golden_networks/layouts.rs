//! The layouts of files, and what differs between the libraries that wrote them.

use colibri_models::{
    registry::{Kind, inspect, load_generator, load_retriever},
    vision::siglip::positions,
};

use crate::support::{cases, checkpoint, golden, images, on_cpu, retriever};

#[test]
fn folders_tell_what_they_hold() {
    for case in cases(&["generate"]) {
        assert_eq!(inspect(&checkpoint(&case).folder).unwrap(), Kind::Generator);
    }
    for case in cases(&["page"]) {
        let checkpoint = checkpoint(&case);
        assert_eq!(
            matches!(inspect(&checkpoint.folder).unwrap(), Kind::Adapter { .. }),
            case.adapter.is_some()
        );
        assert_eq!(inspect(checkpoint.base_folder()).unwrap(), Kind::Retriever);
    }
}

/// The files of three layouts, the adapter of yet another way of saying them, and what is no generator.
#[test]
fn the_registry_loads_every_retriever() {
    let mut seen = 0;
    for case in cases(&["query"]) {
        let checkpoint = checkpoint(&case);
        let mut options = on_cpu();
        options.prompt_version = case
            .prompt_version
            .as_ref()
            .map(|name| name.parse().unwrap());
        let model = load_retriever(&checkpoint, &options).unwrap();
        let rows = model.embed_query(case.query.as_ref().unwrap()).unwrap();
        let expected = retriever(&case, &on_cpu()).embed_query(&case, &mut colibri_models::NoTrace);
        assert_eq!(rows, expected, "{}", case.label());
        assert_eq!(
            model.settings().prompt_version.as_str(),
            case.prompt_version.unwrap()
        );
        assert!(load_generator(&checkpoint, &on_cpu()).is_err());
        seen += 1;
    }
    assert!(seen >= 6, "{seen}");
}

/// What each library does when nothing is said.
#[test]
fn colpali_reads_the_prompts_of_the_library_that_saved_it() {
    for (name, version) in [("colpali-hf", "0.3.1"), ("colpali-merged", "0.3.11")] {
        let case = cases(&["page"])
            .into_iter()
            .find(|case| case.checkpoint == name)
            .unwrap();
        let model = load_retriever(&checkpoint(&case), &on_cpu()).unwrap();
        assert_eq!(model.settings().prompt_version.as_str(), version);
        let found = model
            .embed_page(&images(&case)[0], &mut |_, _| true)
            .unwrap();
        assert_eq!(found.rows.num_rows(), case.num_tokens);
        // 64 patches, each a cell of one grid over the page.
        let cells = found.geometry.iter().filter_map(|token| token.page_box);
        let cells: Vec<_> = cells.collect();
        assert_eq!(cells.len(), 64);
        let last = cells[63];
        assert_eq!(
            (last.left, last.top, last.right, last.bottom),
            (0.875, 0.875, 1.0, 1.0)
        );
    }
    let case = cases(&["page"])
        .into_iter()
        .find(|case| case.checkpoint == "colpali-hf")
        .unwrap();
    let mut options = on_cpu();
    options.prompt_version = Some("0.3.5".parse().unwrap());
    let error = load_retriever(&checkpoint(&case), &options).err().unwrap();
    assert!(error.to_string().contains("`0.3.4`"), "{error}");
}

/// For every number of patches along a side, where they stand in the table of positions.
#[test]
fn fractional_positions_equal_torch() {
    #[derive(serde::Deserialize)]
    struct Side {
        side: usize,
        buckets: Vec<Vec<u32>>,
    }
    let text = fs_err::read(golden().join("positions.json")).unwrap();
    let sides: Vec<Side> = serde_json::from_slice(&text).unwrap();
    assert!(sides.iter().any(|side| side.side == 70));
    for Side { side, buckets } in sides {
        assert_eq!(buckets.len(), side);
        for (index, expected) in buckets.iter().enumerate() {
            let across = positions(1, index + 1, side);
            assert_eq!(&across, expected, "{} of {side}", index + 1);
            let down: Vec<u32> = expected.iter().map(|row| row * side as u32).collect();
            assert_eq!(positions(index + 1, 1, side), down);
        }
    }
}

/// An adapter whose modules are named as a later version names them fits a base of the earlier names.
#[test]
fn an_adapter_of_another_layout_fits() {
    let case = cases(&["query"])
        .into_iter()
        .find(|case| case.adapter.as_deref() == Some("colpali"))
        .unwrap();
    let mut checkpoint = checkpoint(&case);
    let folder = tempfile::tempdir().unwrap();
    for entry in fs_err::read_dir(&checkpoint.folder).unwrap() {
        let from = entry.unwrap().path();
        fs_err::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
    }
    let path = folder.path().join("adapter_model.safetensors");
    let bytes = fs_err::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let renamed = tensors.iter().map(|(name, view)| {
        let name = name.replace("model.language_model.model.", "model.model.language_model.");
        (name, view)
    });
    let written = safetensors::serialize(renamed, None).unwrap();
    assert_ne!(written.len(), 0);
    fs_err::write(&path, written).unwrap();
    checkpoint.folder = folder.path().to_owned();
    let model = load_retriever(&checkpoint, &on_cpu()).unwrap();
    let query = case.query.as_ref().unwrap();
    let expected = retriever(&case, &on_cpu()).embed_query(&case, &mut colibri_models::NoTrace);
    assert_eq!(model.embed_query(query).unwrap(), expected);
}
