//! Generators that run elsewhere, through the program: `ask`, `chat` and `generate` against a stand-in.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::support::{Home, Said, snapshot};

/// Answers every request alike and keeps what was asked.
struct Service {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Service {
    fn start(answer: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let (answer, log) = (answer.into(), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &answer, &log).unwrap();
            }
        });
        Self { address, asked }
    }

    fn saying(text: &str) -> Self {
        let half = text.len() / 2;
        let piece =
            |text: &str| json!({"choices": [{"index": 0, "delta": {"content": text}}]}).to_string();
        let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 40, "completion_tokens": 5}});
        Self::start(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
             data: {}\n\ndata: {}\n\ndata: {end}\n\ndata: [DONE]\n\n",
            piece(&text[..half]),
            piece(&text[half..])
        ))
    }

    fn run(&self, home: &Home, arguments: &[&str], input: &str) -> Said {
        let base = format!("http://{}/v1", self.address);
        let arguments = [arguments, &["--generator", "openai:some-model"]].concat();
        let environment = [
            ("OPENAI_BASE_URL", base.as_str()),
            ("OPENAI_API_KEY", "sk-secret"),
        ];
        let said = home.run_with(&arguments, input, &environment);
        assert!(!said.stdout.contains("sk-secret") && !said.stderr.contains("sk-secret"));
        said
    }

    fn asked(&self) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(_, body)| body.clone()).collect()
    }
}

fn serve(
    stream: TcpStream,
    answer: &[u8],
    log: &Mutex<Vec<(String, Value)>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    log.lock()
        .unwrap()
        .push((head, serde_json::from_slice(&body).unwrap()));
    reader.get_mut().write_all(answer)
}

/// The pictures of a turn and its words.
fn parts(message: &Value) -> (usize, String) {
    let Some(parts) = message["content"].as_array() else {
        return (0, message["content"].as_str().unwrap().to_owned());
    };
    let pictures = parts.iter().filter(|part| {
        let url = part["image_url"]["url"].as_str();
        url.is_some_and(|url| url.starts_with("data:image/"))
    });
    let words = parts.iter().filter_map(|part| part["text"].as_str());
    (pictures.count(), words.collect())
}

#[test]
fn ask_shows_the_service_the_pages_and_cites_them() {
    let home = Home::indexed();
    let service = Service::saying("The total is 1,234.56.");
    let said = service.run(&home, &["ask", "What is the total of the invoice?"], "");
    let said = said.exits(0);
    assert!(
        said.stdout
            .starts_with("The total is 1,234.56.\n[invoice.pdf p."),
        "{}",
        said.stdout
    );
    // It is this machine: nothing to warn of.
    assert_eq!(said.stderr, "");
    let body = &service.asked()[0];
    assert_eq!(body["model"], "some-model");
    let (pictures, words) = parts(&body["messages"][0]);
    assert_eq!(pictures, 1);
    assert!(
        words.ends_with("What is the total of the invoice?"),
        "{words}"
    );
    let asked = service.asked.lock().unwrap();
    assert!(asked[0].0.contains("Bearer sk-secret"), "{}", asked[0].0);
}

#[test]
fn generate_and_chat_use_the_service_too() {
    let home = Home::new();
    let service = Service::saying("A chart.");
    let said = service.run(
        &home,
        &[
            "generate",
            "What is it?",
            "--image",
            "documents/chart.png",
            "--json",
        ],
        "",
    );
    let done = said.exits(0).last();
    assert_eq!(done["text"], "A chart.");
    assert_eq!(
        (&done["prompt_tokens"], &done["new_tokens"]),
        (&json!(40), &json!(5))
    );

    let turns = "What is it?\n/image documents/chart.png\nAnd now?\n";
    let said = service.run(
        &home,
        &[
            "chat",
            "--image",
            "documents/chart.png",
            "--system",
            "Be kind.",
        ],
        turns,
    );
    assert_eq!(said.exits(0).stdout, "A chart.\nA chart.\n");
    let last = &service.asked()[2]["messages"];
    assert_eq!(last[0], json!({"role": "system", "content": "Be kind."}));
    assert_eq!(parts(&last[1]), (1, "What is it?".to_owned()));
    assert_eq!(last[2], json!({"role": "assistant", "content": "A chart."}));
    assert_eq!(parts(&last[3]), (1, "And now?".to_owned()));
}

#[test]
fn what_the_service_refuses_is_told() {
    let home = Home::new();
    let service = Service::start(
        "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
         {\"error\": {\"message\": \"Incorrect API key provided: sk-secret\"}}",
    );
    let said = service.run(&home, &["generate", "Why?"], "").exits(2);
    let stderr = said.stderr.replace(&service.address.to_string(), "[host]");
    snapshot!(Said { stderr, ..said }, @r"
    exit code 2
    ----- err -----
    error: `[host]` refused the key in OPENAI_API_KEY: Incorrect API key provided: (hidden)

    hint: check OPENAI_API_KEY, and that OPENAI_BASE_URL is the service it belongs to
    ");
    let said = home.run_with(
        ["generate", "Why?", "--generator", "openai:"],
        "",
        &[("OPENAI_BASE_URL", "http://localhost:1/v1")],
    );
    snapshot!(said, @r"
    exit code 1
    ----- err -----
    error: `openai:` names no model

    hint: name one, for example `--generator openai:gpt-4o-mini`
    ");
    let said = home.run_with(
        ["generate", "Why?", "--generator", "openai:m"],
        "",
        &[("OPENAI_BASE_URL", "localhost:1/v1")],
    );
    snapshot!(said, @r"
    exit code 1
    ----- err -----
    error: the address of the service cannot be used: it does not begin with `https://` or `http://` and a host

    hint: set OPENAI_BASE_URL to the address that ends before `/chat/completions`, for example `http://localhost:8080/v1`
    ");
}
