//! Chromium over its debugging pipe: JSON messages that end with a zero byte, on the file descriptors 3 and 4.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

/// Names under which it is installed.
const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
];
/// As in a container: no sandbox of its own, no graphics card, and no calls to its maker.
const FLAGS: &str = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
    --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage \
    --window-size=1400,900 --remote-debugging-pipe";
/// Milliseconds that anything may take before a test has failed.
const PATIENCE: u32 = 60_000;

/// True once the app can be used.
pub(crate) const READY: &str = "document.documentElement?.dataset.ready === 'yes'";

/// One page of a browser of its own.
pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    number: u64,
    /// What the page complained about: exceptions, refused scripts and styles.
    pub(crate) complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let candidates = std::env::split_paths(&path).flat_map(|dir| NAMES.map(|name| dir.join(name)));
    candidates.into_iter().find(|file| file.is_file())
}

impl Browser {
    /// Starts one, or says that `test` is skipped because there is none.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let Some(program) = installed() else {
            eprintln!("skipped: {test} (there is no Chromium here)");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "exec \"$0\" {FLAGS} \"$1\" about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1"
            ))
            .arg(program)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut browser = Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            session: None,
            number: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "DOM"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// One call of the protocol.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.input
            .write_all(message.to_string().as_bytes())
            .unwrap();
        self.input.write_all(&[0]).unwrap();
        loop {
            let mut answer = Vec::new();
            let read = self.output.read_until(0, &mut answer).unwrap();
            assert!(read > 0, "the browser has ended");
            answer.pop();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] == self.number {
                assert!(
                    answer.get("error").is_none(),
                    "{method}: {}",
                    answer["error"]
                );
                return answer["result"].clone();
            }
            let params = &answer["params"];
            match answer["method"].as_str() {
                Some("Runtime.exceptionThrown") => self.complaints.push(params.to_string()),
                Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                    self.complaints.push(params["entry"]["text"].to_string());
                }
                _ => {}
            }
        }
    }

    /// Goes to an address.
    pub(crate) fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
    }

    /// Goes to an address, and waits until the app is ready.
    pub(crate) fn open(&mut self, url: &str) {
        self.go(url);
        self.wait(READY);
    }

    /// The value of an expression.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let done = self.call("Runtime.evaluate", params);
        assert!(
            done.get("exceptionDetails").is_none(),
            "{expression}: {}",
            done["exceptionDetails"]
        );
        done["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) fn wait(&mut self, expression: &str) {
        let look = format!(
            "new Promise((done) => {{ const end = Date.now() + {PATIENCE}; \
             const look = () => {{ let found = false; try {{ found = !!({expression}); }} catch {{ }} \
             if (found || Date.now() > end) done(found); else setTimeout(look, 20); }}; look(); }})"
        );
        if self.value(&look) != true {
            let text = self.value("document.body.innerText");
            panic!("never: {expression}\n{text}\n{:?}", self.complaints);
        }
    }

    /// Presses what a selector finds.
    pub(crate) fn press(&mut self, selector: &str) {
        self.wait(&format!("document.querySelector('{selector}')"));
        self.value(&format!("document.querySelector('{selector}').click()"));
    }

    /// Types into the field with this id, and presses Enter.
    pub(crate) fn enter(&mut self, field: &str, text: &str) {
        self.value(&format!("document.getElementById('{field}').focus()"));
        self.call("Input.insertText", json!({"text": text}));
        self.key("Enter", 13, "\r");
    }

    /// Presses a key.
    pub(crate) fn key(&mut self, name: &str, code: u32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let key = json!({"type": kind, "key": name, "code": name, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", key);
        }
    }

    /// Asks a question as a person does.
    pub(crate) fn ask(&mut self, question: &str) {
        self.enter("question", question);
    }

    /// Drags files from outside over the middle of what a selector finds; they are let go with [`Browser::drop_files`].
    pub(crate) fn drag(&mut self, files: &[&Path], selector: &str) {
        for kind in ["dragEnter", "dragOver"] {
            self.drag_event(kind, files, selector);
        }
    }

    /// Lets dragged files go.
    pub(crate) fn drop_files(&mut self, files: &[&Path], selector: &str) {
        self.drag_event("drop", files, selector);
    }

    fn drag_event(&mut self, kind: &str, files: &[&Path], selector: &str) {
        let middle = format!(
            "(() => {{ const box = document.querySelector('{selector}').getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let at = self.value(&middle);
        let data = json!({"items": [], "files": files, "dragOperationsMask": 1});
        let params = json!({"type": kind, "x": at[0], "y": at[1], "data": data});
        self.call("Input.dispatchDragEvent", params);
    }

    /// Chooses a file for the app's input.
    pub(crate) fn choose(&mut self, file: &Path) {
        let found = self.call(
            "Runtime.evaluate",
            json!({"expression": "document.getElementById('files')"}),
        );
        let params = json!({"files": [file], "objectId": found["result"]["objectId"]});
        self.call("DOM.setFileInputFiles", params);
    }

    /// Changes the size of the window.
    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", params);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
