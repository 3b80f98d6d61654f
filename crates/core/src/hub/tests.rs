//! The hub against a server on this machine.

mod server;

use super::*;
use server::{COMMIT, Server};

fn name(text: &str) -> Name {
    Name::parse(Path::new(text)).expect("a name")
}

fn hub(endpoint: &str, home: &Path, token: Option<&str>) -> Hub {
    Hub::new(endpoint.to_owned(), Cache::new(home.join("hub")), token.map(str::to_owned), false).expect("a hub")
}

const MODEL: &[(&str, &[u8])] = &[
    ("README.md", b"not needed"),
    ("config.json", b"{}"),
    ("tokenizer.json", b"{\"model\": {}}"),
    ("vocab.json", b"not needed beside tokenizer.json"),
    ("model.safetensors.index.json", br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "../../escape"}}"#),
    ("model-1.safetensors", b"first"),
    ("model-2.safetensors", b"second"),
    ("pytorch_model.bin", b"not needed beside safetensors"),
    ("onnx/model.onnx", b"not needed"),
    ("modules.json", b"[]"),
    ("1_Pooling/config.json", b"{\"pooling\": 1}"),
    ("runs/config.json", b"not needed"),
];

#[test]
fn what_is_needed_is_fetched_once() {
    let (server, home) = (Server::start(MODEL, None), tempfile::tempdir().unwrap());
    let hub = hub(&server.endpoint, home.path(), None);
    let folder = hub.folder(&name("org/model")).unwrap();
    assert_eq!(folder, home.path().join("hub/models--org--model/snapshots").join(COMMIT));
    let needed = [
        "config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "modules.json",
        "1_Pooling/config.json",
    ];
    for file in needed {
        let expected = MODEL.iter().find(|(name, _)| *name == file).unwrap().1;
        assert_eq!(std::fs::read(folder.join(file)).unwrap(), expected, "{file}");
    }
    let info = "/api/models/org/model/revision/main".to_owned();
    let expected = needed.map(|file| format!("/org/model/resolve/{COMMIT}/{file}")).into_iter().chain([info.clone()]).collect();
    assert_eq!(server.paths(), expected);
    // The second time only whether there is something new.
    assert_eq!(hub.folder(&name("org/model")).unwrap(), folder);
    assert_eq!(server.paths(), [info].into());
    // A tag of the same commit.
    assert_eq!(hub.folder(&name("org/model@v1")).unwrap(), folder);
    assert_eq!(server.paths(), ["/api/models/org/model/revision/v1".to_owned()].into());
    // A name without an organisation, which the hub sends elsewhere.
    let old = hub.folder(&name("gpt2")).unwrap();
    assert_eq!(old, home.path().join("hub/models--gpt2/snapshots").join(COMMIT));
    assert_eq!(std::fs::read(old.join("model-2.safetensors")).unwrap(), b"second");
    server.paths();
    // Without the hub the copy serves, but no other.
    let nobody = "http://127.0.0.1:9";
    for is_offline in [false, true] {
        let unreached = Hub { is_offline, ..self::hub(nobody, home.path(), None) };
        assert_eq!(unreached.folder(&name("org/model")).unwrap(), folder);
        let message = unreached.folder(&name("org/other")).unwrap_err().to_string();
        let expected = if is_offline { "HF_HUB_OFFLINE" } else { "http://127.0.0.1:9 cannot be reached" };
        assert!(message.starts_with("org/other: no such folder, and ") && message.contains(expected), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn what_is_not_there_or_not_open_is_said_in_a_line() {
    let (server, home) = (Server::start(MODEL, None), tempfile::tempdir().unwrap());
    let open = hub(&server.endpoint, home.path(), None);
    let at = server.endpoint.trim_end_matches('/');
    let message = |hub: &Hub, model: &str| hub.folder(&name(model)).unwrap_err().to_string();
    let expected = format!("no such folder, and no such model at {at}: check the name; set HF_TOKEN if it is private");
    assert_eq!(message(&open, "org/none"), format!("org/none: {expected}"));
    let text = message(&open, "org/model@v2");
    assert!(text.contains("no such model with the revision \"v2\""), "{text}");

    let private = Server::start(MODEL, Some("hf_secret"));
    let text = message(&hub(&private.endpoint, home.path(), None), "org/model");
    assert!(text.ends_with("set HF_TOKEN if it is private"), "{text}");
    let text = message(&hub(&private.endpoint, home.path(), Some("hf_wrong")), "org/model");
    assert!(text.ends_with("the token in use may not read it") && !text.contains("hf_wrong"), "{text}");
    let folder = hub(&private.endpoint, home.path(), Some("hf_secret")).folder(&name("org/model")).unwrap();
    assert!(folder.join("config.json").exists());

    let bare = Server::start(&[("README.md", b"")], None);
    let text = message(&hub(&bare.endpoint, home.path(), None), "org/model");
    assert!(text.ends_with("has no config.json: no model that Kiln reads"), "{text}");
}

/// A file that the list has and the server has not: the folder does not count as whole.
#[test]
fn a_broken_download_leaves_no_model() {
    let server = Server::start(&[("config.json", b"{}"), ("model.safetensors", b"")], None);
    let home = tempfile::tempdir().unwrap();
    // The server fails on a range of an empty file and closes the connection without an answer.
    let hub = hub(&server.endpoint, home.path(), None);
    let message = hub.folder(&name("org/model")).unwrap_err().to_string();
    assert!(message.starts_with("org/model: model.safetensors: ") && !message.contains('\n'), "{message}");
    let offline = Hub { is_offline: true, ..hub };
    assert!(offline.folder(&name("org/model")).is_err());
}

#[test]
fn names_are_told_from_folders() {
    for text in ["gpt2", "gpt2@main", "org/model", "HuggingFaceTB/SmolLM2-135M", "org/model@v1.0", "org/model@refs/pr/1"] {
        assert!(Name::parse(Path::new(text)).is_some(), "{text}");
    }
    for text in [
        "nowhere",
        "gpt3@main",
        ".",
        "./model",
        "../model",
        "runs/sft-1/model",
        "/org/model",
        "org/",
        "/model",
        "org/mo del",
        "org/model@../x",
        "~/model",
        "org/..",
        "",
    ] {
        assert_eq!(Name::parse(Path::new(text)), None, "{text}");
    }
    let existing = tempfile::tempdir().unwrap();
    assert_eq!(folder(existing.path()).unwrap(), existing.path());
    let nowhere = existing.path().join("nowhere");
    assert_eq!(folder(&nowhere).unwrap(), nowhere);
    for endpoint in ["huggingface.co", "https://", "ftp://x", "http://a b"] {
        assert!(Hub::new(endpoint.into(), Cache::new(existing.path().into()), None, false).is_err(), "{endpoint}");
    }
}

const DATA: &[(&str, &[u8])] = &[
    ("README.md", b"not needed"),
    ("data/train-00000-of-00002.jsonl", b"first"),
    ("data/train-00001-of-00002.jsonl", b"second"),
    ("data/test-00000-of-00001.jsonl", b"third"),
    ("other/test.jsonl", b"fourth"),
];

fn is_data(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl")
}

fn data(hub: &Hub, place: &str) -> Result<Vec<String>> {
    let wanted = data::Wanted::parse(Path::new(place), &is_data).expect("a name");
    let files = hub.data_files(&wanted, &is_data)?;
    Ok(files.iter().map(|path| std::fs::read_to_string(path).expect("a file")).collect())
}

#[test]
fn splits_and_files_of_data_sets_are_fetched_once() {
    let (server, home) = (Server::start(DATA, None), tempfile::tempdir().unwrap());
    let online = hub(&server.endpoint, home.path(), None);
    assert_eq!(data(&online, "org/data").unwrap(), ["first", "second"]);
    let info = "/api/datasets/org/data/revision/main".to_owned();
    let file = |name: &str| format!("/datasets/org/data/resolve/{COMMIT}/data/{name}");
    let shards = ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"].map(file);
    assert_eq!(server.paths(), shards.iter().cloned().chain([info.clone()]).collect());
    assert_eq!(data(&online, "org/data:train").unwrap(), ["first", "second"]);
    assert_eq!(server.paths(), [info].into(), "what the cache has is not fetched");
    assert_eq!(data(&online, "hf://datasets/org/data@v1/data:test").unwrap(), ["third"]);
    assert_eq!(data(&online, "hf://datasets/org/data/other/test.jsonl").unwrap(), ["fourth"]);
    for (place, words) in [
        (
            "org/data:test",
            "the split \"test\" is in several folders: data/test-00000-of-00001.jsonl, other/test.jsonl; name one as hf://datasets/org/data/FOLDER:test",
        ),
        ("org/data:dev", "no file of the split \"dev\" among data/test-00000-of-00001.jsonl, "),
        ("hf://datasets/org/data/none", "the data set has no file of rows that Kiln reads in none"),
        ("org/none", "no such file, and no such data set at http://127.0.0.1:"),
    ] {
        let error = data(&online, place).unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{error}");
    }
    // No hub, no matter: the cache has it.
    let offline = Hub { is_offline: true, ..hub("http://127.0.0.1:9", home.path(), None) };
    for cached in [&offline, &hub("http://127.0.0.1:9", home.path(), None)] {
        assert_eq!(data(cached, "org/data").unwrap(), ["first", "second"]);
    }
}

#[test]
fn files_of_this_machine_are_no_data_sets() {
    let none = |place: &str| data::Wanted::parse(Path::new(place), &is_data).is_none();
    for place in
        ["train.jsonl", "data/train.jsonl", "a/b/train.jsonl", "/a/b", "src/lib.rs", "org/data/more", "org/data:", "org/na me", "../data"]
    {
        assert!(none(place), "{place}");
    }
    let names = |place: &str| names_split(Path::new(place), &is_data);
    assert_eq!(
        [names("org/data"), names("org/data:test"), names("hf://datasets/org/data/a.jsonl"), names("a.jsonl")],
        [Some(false), Some(true), Some(true), None]
    );
}
