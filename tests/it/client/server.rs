//! A small HTTP/1.1 server on a socket, by hand, so that it can also misbehave: reset, cut an answer short, say nothing.

use std::{
    collections::HashMap,
    io::Read as _,
    sync::{Arc, Mutex},
    time::Instant,
};

use serde_json::{Value, json};
use tallymark::{
    item::{Seq, TopicId},
    receipt::Receipt,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What the server was asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// How many requests came before it.
    pub index: usize,
    pub at: Instant,
    pub method: String,
    pub target: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    /// The body's items.
    pub fn items(&self) -> Vec<Value> {
        let mut text = String::new();
        match self.headers.get("content-encoding").map(String::as_str) {
            Some("gzip") => {
                flate2::read::GzDecoder::new(&self.body[..]).read_to_string(&mut text).unwrap();
            }
            None => text = String::from_utf8(self.body.clone()).unwrap(),
            Some(other) => panic!("{other}"),
        }
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What it does then.
pub enum Action {
    /// Answers with this status, these headers and this body.
    Answer(u16, Vec<(&'static str, String)>, Value),
    /// Answers 202 and breaks off in the middle of the body.
    Cut,
    /// Closes the connection without a word.
    Reset,
    /// Never answers.
    Hang,
}

impl Action {
    pub fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), json!({"status": status, "code": "scripted", "detail": "as the test says"}))
    }

    /// What an ingest that likes every item says.
    pub fn accept(request: &Request) -> Self {
        let seq = Seq(request.index as u64);
        let receipt = Receipt { topic_id: TopicId([1; 16]), packs: vec![(0, seq)] }.to_string();
        Self::Answer(202, Vec::new(), json!({"accepted": request.items().len(), "receipt": receipt}))
    }
}

pub struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    /// A server that does what `script` says to each request.
    pub async fn start(script: impl Fn(&Request) -> Action + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, script) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::new(script));
        let accepting = tokio::spawn({
            let seen = seen.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (seen, script) = (seen.clone(), script.clone());
                    tokio::spawn(async move { serve(stream, &seen, &*script).await });
                }
            }
        });
        Self { url, seen, accepting }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Every item of every request, in the order of arrival.
    pub fn items(&self) -> Vec<Value> {
        self.requests().iter().flat_map(Request::items).collect()
    }
}

async fn serve(stream: TcpStream, seen: &Mutex<Vec<Request>>, script: &(impl Fn(&Request) -> Action + Sync)) {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read(&mut stream).await {
        {
            let mut seen = seen.lock().unwrap();
            request.index = seen.len();
            seen.push(request.clone());
        }
        match script(&request) {
            Action::Hang => std::future::pending().await,
            Action::Reset => {
                // Zero linger: the peer sees a reset, not an orderly end.
                let _ = stream.get_ref().set_zero_linger();
                return;
            }
            Action::Cut => {
                let _ = stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 100\r\n\r\n{\"accep").await;
                return;
            }
            Action::Answer(status, headers, body) => {
                let body = if body.is_null() { String::new() } else { body.to_string() };
                let mut head = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                if stream.write_all((head + "\r\n" + &body).as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |length: &String| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { index: 0, at: Instant::now(), method, target, headers, body })
}
