//! The web app in a real browser: what a person does, from a file to the page under a citation.
//!
//! Skipped by name where there is no Chromium; `.ci/run` installs it.

mod access;
mod driver;

use std::net::SocketAddr;

use colibri_engine::checkpoints::Choice;

use colibri_server::{Access, ApiKey};
use serde_json::json;

use driver::{Browser, READY};

use crate::{
    endless::{Endless, NEXT_WORD, WORD},
    lossy::Lossy,
    support::{PATIENCE, Site, at_rest, example, examples, metric, pdf},
};

const QUESTION: &str = "What is the total of the invoice from Osprey Print Works?";

/// Runs `person` in a browser beside the server; `false` if there is none.
async fn visit(
    test: &'static str,
    site: &Site,
    person: impl FnOnce(&mut Browser, &str) + Send + 'static,
) -> bool {
    visit_at(test, site.address, person).await
}

/// The same at another address.
async fn visit_at(
    test: &'static str,
    address: SocketAddr,
    person: impl FnOnce(&mut Browser, &str) + Send + 'static,
) -> bool {
    let url = format!("http://{address}/");
    let done = tokio::task::spawn_blocking(move || {
        let Some(mut browser) = Browser::start(test) else {
            return false;
        };
        browser.go(&url);
        person(&mut browser, &url);
        assert_eq!(browser.complaints, Vec::<String>::new());
        true
    });
    done.await.unwrap()
}

/// Writes down every text that appears among the jobs from now on, however short a time it is there.
const WATCH_JOBS: &str = "window.told = []; new MutationObserver((changes) => { \
    for (const change of changes) for (const node of change.addedNodes) window.told.push(node.textContent); \
    }).observe(document.getElementById('jobs'), { childList: true, subtree: true })";

#[tokio::test(flavor = "multi_thread")]
async fn a_person_adds_asks_and_looks() {
    let site = Site::with(|config| config.models.retriever = Choice::Named("builtin".into())).await;
    let file = fs_err::canonicalize(examples().join("invoice.pdf")).unwrap();
    visit("a_person_adds_asks_and_looks", &site, move |browser, url| {
        browser.wait(READY);
        browser.value(WATCH_JOBS);
        browser.choose(&file);
        browser.wait("document.querySelector('#documents .item .name')?.textContent === 'invoice.pdf'");
        browser.wait("!document.querySelector('.job')");
        let told = browser.value("window.told");
        let told: Vec<&str> = told.as_array().unwrap().iter().filter_map(|text| text.as_str()).collect();
        assert!(told.contains(&"page 1 of 1"), "{told:?}");
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
        browser.wait(READY);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_person_stops_answers_and_leaves() {
    let endless = Endless::start().await;
    let site = Site::with(|config| endless.answer_for(config)).await;
    site.add("invoice.pdf", example("invoice.pdf")).await;
    let is_there = visit("a_person_stops_answers_and_leaves", &site, move |browser, _| {
        browser.wait(READY);
        let begun = |number: usize| {
            format!("document.querySelectorAll('.turn').length === {number} \
                && document.querySelector('.turn:last-child .prose')?.textContent.includes('{WORD}') \
                && !document.getElementById('stop').hidden && document.getElementById('send').hidden")
        };
        let stopped = "document.querySelector('.turn:last-child .status')?.textContent === 'Stopped.' \
            && document.getElementById('stop').hidden && !document.getElementById('send').hidden";
        browser.ask(QUESTION);
        browser.wait(&begun(1));
        browser.press("#stop");
        browser.wait(stopped);
        // What was written until then stays, and the next question is taken.
        browser.wait(&format!("document.querySelector('.prose').textContent.includes('{WORD}')"));
        browser.ask("And the date?");
        browser.wait(&begun(2));
        browser.key("Escape", 27, "");
        browser.wait(stopped);
        browser.ask("Who sent the invoice?");
        browser.wait(&begun(3));
        browser.go("about:blank");
    })
    .await;
    if is_there {
        // Three answers were begun; nobody works on any of them any more.
        endless.left(3).await;
        at_rest(&site).await;
        assert_eq!(metric(&site, "asks_total").await, 3);
        assert_eq!(metric(&site, "asks_stopped_total").await, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_dropped_anywhere() {
    let site = Site::start().await;
    let file = |name: &str| fs_err::canonicalize(examples().join(name)).unwrap();
    let (invoice, chart) = (file("invoice.pdf"), file("chart.png"));
    visit("files_are_dropped_anywhere", &site, move |browser, url| {
        browser.wait(READY);
        let files = [invoice.as_path(), chart.as_path()];
        browser.drag(&files, "#drop");
        browser.wait("document.querySelector('#drop.over')");
        browser.drop_files(&files, "#drop");
        browser.wait("!document.querySelector('#drop.over')");
        let names = "[...document.querySelectorAll('#documents .item .name')].map((one) => one.textContent).sort().join()";
        browser.wait(&format!("{names} === 'chart.png,invoice.pdf'"));
        browser.wait("!document.querySelector('.job')");
        // A file that misses its mark is taken too, and does not replace the app; one that is no document is refused
        // with the reason.
        let script = fs_err::canonicalize(examples().join("questions.jsonl")).unwrap();
        browser.drag(&[&script], "#turns");
        browser.drop_files(&[&script], "#turns");
        browser.wait("document.querySelector('.job.failed .about')?.textContent.length > 10");
        assert_eq!(browser.value("location.href"), url);
        browser.complaints.retain(|complaint| !complaint.contains("415"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_asked_for_once_a_tab() {
    let site = Site::with(|config| {
        config.access = Access {
            api_key: Some(ApiKey::new("correct horse")),
            host_names: Vec::new(),
        };
    })
    .await;
    let file = fs_err::canonicalize(examples().join("invoice.pdf")).unwrap();
    visit("the_key_is_asked_for_once_a_tab", &site, move |browser, url| {
        browser.wait("document.querySelector('#key-dialog[open]')");
        browser.enter("key", "wrong");
        browser.wait("!document.getElementById('key-wrong').hidden");
        browser.enter("key", "correct horse");
        browser.wait(READY);
        browser.wait("!document.querySelector('#key-dialog[open]')");
        // Pictures need the key as well, and are shown.
        browser.choose(&file);
        browser.wait("document.querySelector('#documents .thumb')?.naturalWidth > 0");
        browser.press("#documents .item .open");
        browser.wait("document.querySelector('.stage')?.dataset.loaded");
        browser.wait("document.querySelector('.sheet img').naturalWidth > 0");
        browser.open(url);
        assert_eq!(browser.value("!!document.querySelector('#key-dialog[open]')"), false);
        browser.wait("document.querySelector('#documents .item')");
        // It is kept for this tab alone, and written down nowhere else.
        let kept = browser.value("JSON.stringify([localStorage, document.cookie, location.href, document.body.innerHTML])");
        assert!(!kept.as_str().unwrap().contains("correct horse"), "{kept}");
        // The browser tells of the answers before the key was right.
        browser.complaints.retain(|complaint| !complaint.contains("401"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_goes_on_where_it_was() {
    let endless = Endless::start().await;
    let site = Site::with(|config| {
        endless.answer_for(config);
        config.bounds.grace = PATIENCE;
    })
    .await;
    site.add("invoice.pdf", example("invoice.pdf")).await;
    let way = Lossy::to(site.address).await;
    let address = way.address;
    let said = "document.querySelector('.prose')?.textContent.trim()";
    let test = "a_lost_connection_goes_on_where_it_was";
    visit_at(test, address, move |browser, _| {
        browser.wait(READY);
        browser.ask(QUESTION);
        browser.wait(&format!("{said} === '{WORD}'"));
        way.cut();
        endless.go_on();
        // Each word once: what was read before is not sent again.
        browser.wait(&format!("{said} === '{WORD}{NEXT_WORD}'"));
        browser.press("#stop");
        browser
            .wait("document.querySelector('.turn:last-child .status')?.textContent === 'Stopped.'");
        browser
            .complaints
            .retain(|complaint| !complaint.contains("ERR_"));
    })
    .await;
    at_rest(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_sees_how_many_come_first() {
    let endless = Endless::start().await;
    let site = Site::with(|config| endless.answer_for(config)).await;
    site.add("invoice.pdf", example("invoice.pdf")).await;
    let request = site.post("/api/ask", &json!({"question": QUESTION}));
    let before = request.send().await.unwrap();
    visit(
        "who_waits_sees_how_many_come_first",
        &site,
        move |browser, _| {
            browser.wait(READY);
            browser.ask(QUESTION);
            browser.wait(
                "document.querySelector('.status')?.textContent === '1 question before this one'",
            );
            // The one before has nobody who reads it any more, so it ends.
            drop(before);
            browser.wait(&format!(
                "document.querySelector('.prose')?.textContent.includes('{WORD}')"
            ));
            browser.press("#stop");
            browser.wait(
                "document.querySelector('.turn:last-child .status')?.textContent === 'Stopped.'",
            );
        },
    )
    .await;
    at_rest(&site).await;
}
