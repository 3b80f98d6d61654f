//! A hub on this machine that has one model, whose files are those of a data set too, and answers as huggingface.co does.

use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The commit that all revisions are.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A server of one model and data set, and the requests it got: method, path and, where one came, token.
pub struct Server {
    /// Its address.
    pub endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves `files` as `org/model`, which was called `gpt2` once, and as the data set `org/data`; with a token only to those who send it.
    pub fn start(files: &[(&str, &[u8])], token: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}/", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, files) = (requests.clone(), files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(&stream.expect("a connection"), &files, token, &seen);
            }
        });
        Self { endpoint, requests }
    }

    /// The paths asked for since the last call, each once.
    pub fn paths(&self) -> BTreeSet<String> {
        self.requests.lock().expect("requests").drain(..).collect()
    }
}

/// One request, one answer.
fn answer(mut stream: &TcpStream, files: &BTreeMap<String, Vec<u8>>, token: Option<&str>, seen: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream).lines().map_while(std::result::Result::ok);
    let Some(request) = lines.next() else { return };
    let path = request.split(' ').nth(1).expect("a path").to_owned();
    let headers: BTreeMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    seen.lock().expect("requests").push(path.clone());
    let mut reply = |status: &str, headers: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n", body.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("an answer");
    };
    if token.is_some_and(|token| headers.get("authorization") != Some(&format!("Bearer {token}"))) {
        return reply("401 Unauthorized", "", b"");
    }
    // Its name of old.
    let renamed = [("/api/models/gpt2/", "/api/models/org/model/"), ("/gpt2/", "/org/model/")];
    if let Some((old, new)) = renamed.into_iter().find(|(old, _)| path.starts_with(old)) {
        return reply("307 Temporary Redirect", &format!("location: {}\r\n", path.replacen(old, new, 1)), b"");
    }
    let repositories = ["/api/models/org/model", "/api/datasets/org/data"];
    let is_info = ["main", "v1"].iter().any(|revision| repositories.iter().any(|name| path == format!("{name}/revision/{revision}")));
    if is_info {
        let siblings: Vec<_> = files.keys().map(|name| json!({"rfilename": name})).collect();
        return reply("200 OK", "", json!({"sha": COMMIT, "siblings": siblings}).to_string().as_bytes());
    }
    let repository = ["/org/model", "/datasets/org/data"].into_iter().find_map(|name| path.strip_prefix(name));
    let file = repository.and_then(|path| path.strip_prefix(&format!("/resolve/{COMMIT}/")));
    let Some((name, bytes)) = file.and_then(|name| files.get_key_value(name)) else { return reply("404 Not Found", "", b"") };
    let range = headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-')).expect("a range");
    let start: usize = range.0.parse().expect("a start");
    let end = range.1.parse().map_or(bytes.len(), |last: usize| last + 1);
    let headers = format!(
        "x-repo-commit: {COMMIT}\r\netag: \"{}\"\r\ncontent-range: bytes {start}-{}/{}\r\n",
        name.replace(['/', '.'], "-"),
        end - 1,
        bytes.len()
    );
    reply("206 Partial Content", &headers, &bytes[start..end]);
}
