//! axe-core over every view. Its script is not part of the project: `COLIBRI_AXE` names the file, for example
//! `axe_core_python/axe.min.js` out of PyPI's `axe-core-python`; without it the test is skipped by name.

use std::path::PathBuf;

use colibri_engine::checkpoints::Choice;
use serde_json::{Value, json};

use super::{
    QUESTION,
    driver::{Browser, READY},
    visit,
};
use crate::support::{Site, example};

/// What axe finds in the page as it is now.
fn violations(browser: &mut Browser, view: &str) -> Vec<String> {
    let found = browser.value(
        "axe.run(document).then((done) => done.violations.map((one) => \
         `${one.impact} ${one.id}: ${one.nodes.map((node) => node.html).slice(0, 3).join(' ')}`))",
    );
    let found = found.as_array().unwrap().iter();
    found
        .filter_map(Value::as_str)
        .map(|text| format!("{view}: {text}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing() {
    let Some(file) = std::env::var_os("COLIBRI_AXE").map(PathBuf::from) else {
        eprintln!("skipped: axe_finds_nothing (COLIBRI_AXE names no axe.min.js)");
        return;
    };
    let script = fs_err::read_to_string(&file).unwrap();
    let empty = script.clone();
    let site = Site::with(|config| config.models.retriever = Choice::Named("builtin".into())).await;
    visit("axe_finds_nothing", &site, move |browser, _| {
        browser.wait(READY);
        browser.value(&empty);
        assert_eq!(violations(browser, "empty"), Vec::<String>::new());
    })
    .await;
    site.add("invoice.pdf", example("invoice.pdf")).await;
    visit("axe_finds_nothing", &site, move |browser, url| {
        let mut found = Vec::new();
        for (scheme, width) in [
            ("light", 1400),
            ("dark", 1400),
            ("light", 390),
            ("dark", 390),
        ] {
            let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            browser.call("Emulation.setEmulatedMedia", media);
            browser.size(width, 850);
            browser.open(url);
            browser.value(&script);
            let mut look = |browser: &mut Browser, view: &str| {
                let view = format!("{view}, {scheme}, {width}");
                found.extend(violations(browser, &view));
            };
            browser.ask(QUESTION);
            browser.wait("document.querySelector('.turn:last-child .foot')");
            look(browser, "answer");
            browser.press(".turn:last-child .chips .chip");
            browser.wait("document.querySelector('.stage')?.dataset.loaded");
            browser.wait("document.querySelectorAll('.words button').length > 2");
            look(browser, "page");
            for (tab, there) in [("activity", ".line"), ("system", "meter")] {
                browser.press(&format!("#tab-{tab}"));
                browser.wait(&format!("document.querySelector('#pane-{tab} {there}')"));
                look(browser, tab);
            }
            browser.press("#close-panel");
            browser.value("document.getElementById('key-dialog').showModal()");
            look(browser, "key");
        }
        assert_eq!(found, Vec::<String>::new());
    })
    .await;
}
