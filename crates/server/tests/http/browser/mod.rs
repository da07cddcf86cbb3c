//! The web app in a real browser: what a person does, from a file to the page under a citation.
//!
//! Skipped by name where there is no Chromium; `.ci/run` installs it.

mod driver;

use colibri_engine::checkpoints::Choice;

use driver::Browser;

use crate::support::{Site, examples, pdf};

const QUESTION: &str = "What is the total of the invoice from Osprey Print Works?";

/// Runs `person` in a browser beside the server.
async fn visit(
    test: &'static str,
    site: &Site,
    person: impl FnOnce(&mut Browser, &str) + Send + 'static,
) {
    let url = site.url("/");
    let done = tokio::task::spawn_blocking(move || {
        let Some(mut browser) = Browser::start(test) else {
            return;
        };
        browser.open(&url);
        person(&mut browser, &url);
        assert_eq!(browser.complaints, Vec::<String>::new());
    });
    done.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_adds_asks_and_looks() {
    let site = Site::with(|config| config.models.retriever = Choice::Named("builtin".into())).await;
    let file = fs_err::canonicalize(examples().join("invoice.pdf")).unwrap();
    visit("a_person_adds_asks_and_looks", &site, move |browser, url| {
        browser.choose(&file);
        browser.wait("document.querySelector('#documents .item .name')?.textContent === 'invoice.pdf'");
        browser.wait("!document.querySelector('.job')");
        browser.ask(QUESTION);
        browser.wait("document.querySelector('.chips .chip')");
        let answer = browser.value("document.querySelector('.prose').textContent");
        assert!(answer.as_str().unwrap().contains("2,346.00"), "{answer}");
        browser.press(".chips .chip");
        browser.wait("document.querySelector('.stage')?.dataset.loaded");
        browser.wait("document.querySelectorAll('.region').length > 0");
        // The heat of one word.
        browser.wait("[...document.querySelectorAll('.words button')].some((one) => one.textContent === 'total')");
        browser.value("[...document.querySelectorAll('.words button')].find((one) => one.textContent === 'total').click()");
        browser.wait("document.querySelector('.sheet canvas').dataset.word === 'total'");
        let painted = "(() => { const canvas = document.querySelector('.sheet canvas'); \
            return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0); })()";
        assert_eq!(browser.value(painted), true);
        // Coming back finds the conversation as it was.
        browser.open(url);
        let kept = browser.value("document.querySelector('.prose').textContent");
        assert_eq!(kept, answer);
        assert_eq!(browser.value("document.querySelectorAll('#history .item').length"), 1);
        // At the width of a phone nothing is wider than the window.
        browser.size(390, 844);
        browser.wait("document.documentElement.scrollWidth <= 390");
        browser.press(".chips .chip");
        browser.wait("document.querySelector('#panel.shown .stage')?.dataset.loaded");
        browser.press("#close-panel");
        browser.wait("!document.querySelector('#panel.shown')");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_documents_are_text() {
    let site = Site::start().await;
    let script = "<script>document.title='taken'</script>";
    let image = "<img src=x onerror=document.title='taken'> [a](javascript:alert(1)) hostile total";
    site.add("hostile.pdf", pdf(script, &[script, image])).await;
    visit("hostile_documents_are_text", &site, move |browser, _| {
        browser.ask("hostile total");
        browser.wait("document.querySelector('.chips .chip')");
        browser.press(".chips .chip");
        browser.wait("document.querySelector('.stage')?.dataset.loaded");
        assert_eq!(browser.value("document.title"), "Colibri");
        let made = "document.querySelectorAll('main script, main a, .prose img, #documents script, aside script').length";
        assert_eq!(browser.value(made), 0);
        let shown = browser.value("document.querySelector('.prose').textContent");
        assert!(shown.as_str().unwrap().contains("<img src=x"), "{shown}");
        let text = browser.value("document.querySelector('.page-text pre').textContent");
        assert!(text.as_str().unwrap().contains("<script>"), "{text}");
        // A way in that somebody might add later is refused by the browser itself.
        let refused = "(() => { try { document.body.innerHTML = '<b>x</b>'; return false; } catch { return true; } })()";
        assert_eq!(browser.value(refused), true);
        browser.complaints.clear();
    })
    .await;
}
