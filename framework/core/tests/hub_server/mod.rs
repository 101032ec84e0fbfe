//! A local HTTP server that answers as the hub does, or as it should not; used by the tests of the
//! library and of the command.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub struct Asked {
    pub method: String,
    pub path: String,
    pub range: Option<usize>,
    pub token: Option<String>,
}

#[derive(Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The length that is stated, if not that of the body: the connection then ends early.
    pub stated: Option<usize>,
}

type Behaviour = dyn Fn(&Asked, usize) -> Answer + Send + Sync;

/// A server on a port of its own. It keeps what it was asked.
pub struct Server {
    pub address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn new(behaviour: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let address = format!("http://{}", listener.local_addr().expect("address"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (kept, behaviour): (_, Arc<Behaviour>) = (log.clone(), Arc::new(behaviour));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, behaviour) = (kept.clone(), behaviour.clone());
                std::thread::spawn(move || serve(stream, &kept, &*behaviour));
            }
        });
        Self { address, log }
    }

    pub fn asked(&self) -> Vec<String> {
        self.log.lock().expect("log").clone()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<String>>, behaviour: &Behaviour) {
    let mut reader = BufReader::new(stream.try_clone().expect("stream"));
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut parts = line.split(' ');
    let mut asked = Asked {
        method: parts.next().unwrap_or_default().into(),
        path: parts.next().unwrap_or_default().into(),
        range: None,
        token: None,
    };
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
            break;
        }
        let (name, value) = header.trim().split_once(": ").unwrap_or_default();
        match name.to_lowercase().as_str() {
            "range" => {
                asked.range = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok()
            }
            "authorization" => asked.token = Some(value.to_owned()),
            _ => {}
        }
    }
    let count = {
        let mut log = log.lock().expect("log");
        log.push(format!(
            "{} {}{}",
            asked.method,
            asked.path,
            asked.range.map_or(String::new(), |r| format!(" from {r}"))
        ));
        log.len()
    };
    let answer = behaviour(&asked, count);
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", answer.status);
    if !answer.headers.iter().any(|(n, _)| n == "content-length") {
        head += &format!("content-length: {}\r\n", answer.stated.unwrap_or(answer.body.len()));
    }
    answer.headers.iter().for_each(|(n, v)| head += &format!("{n}: {v}\r\n"));
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    if asked.method != "HEAD" {
        let _ = stream.write_all(&answer.body);
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    cilbench::hex(&Sha256::digest(bytes))
}

/// What a good hub answers for a file: a redirect with its hash and size for a large one, then the
/// body, ranges understood.
pub fn good(asked: &Asked, file: &str, body: &[u8]) -> Answer {
    let mut headers = vec![("x-repo-commit".to_owned(), COMMIT.to_owned())];
    if asked.path.ends_with(&format!("/{file}")) && asked.path.contains("/resolve/") {
        headers.push(("x-linked-etag".into(), format!("\"{}\"", sha256(body))));
        headers.push(("x-linked-size".into(), body.len().to_string()));
        headers.push(("location".into(), "/cdn/blob".into()));
        return Answer { status: 302, headers, ..Answer::default() };
    }
    match (asked.path.as_str(), asked.range) {
        ("/cdn/blob", Some(from)) => {
            Answer { status: 206, body: body[from..].to_vec(), ..Answer::default() }
        }
        ("/cdn/blob", None) => Answer { status: 200, body: body.to_vec(), ..Answer::default() },
        _ => Answer {
            status: 404,
            headers: vec![("x-error-code".into(), "EntryNotFound".into())],
            ..Answer::default()
        },
    }
}
