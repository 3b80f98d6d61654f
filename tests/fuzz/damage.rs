//! Damage to a file, drawn from a key, and what a reader makes of it.

use kiln_kernels::random::Key;
use peak_alloc::PeakAlloc;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tempfile::TempDir;

/// How a file is damaged.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// Any byte: changed, taken away, put in, repeated, cut off.
    Bytes,
    /// Values of a JSON document replaced by such as nobody expects, keys taken away and doubled.
    Json,
    /// The same for the header of a safetensors file, whose length is set right.
    SafetensorsHeader,
}

/// A reader of a folder, and the file of it that is damaged.
pub struct Reader {
    folder: TempDir,
    /// Its name.
    pub file: &'static str,
    path: PathBuf,
    whole: Vec<u8>,
    damage: Damage,
    read: Box<dyn Fn(&Path)>,
}

/// What became of all inputs.
pub struct Outcome {
    /// The messages of panics, with the number of the input.
    pub panics: Vec<String>,
    /// How much more than before the process had allocated at most.
    pub peak_bytes: usize,
    /// The time it took.
    pub seconds: f64,
}

impl Reader {
    /// Of a copy of `folder`, in which `file` gets damaged.
    pub fn new(folder: &Path, file: &'static str, damage: Damage, read: impl Fn(&Path) + 'static) -> Self {
        let copy = tempfile::tempdir().expect("a folder");
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            if entry.path().is_file() {
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
            }
        }
        let path = copy.path().join(file);
        let whole = std::fs::read(&path).expect("the file");
        Self { folder: copy, file, path, whole, damage, read: Box::new(read) }
    }

    /// Reads `n_inputs` damaged files.
    pub fn run(&mut self, n_inputs: usize) -> Outcome {
        let key = self.file.bytes().fold(Key::new(self.damage as u64), |key, byte| key.fold(u64::from(byte)));
        let (start, before, mut panics) = (Instant::now(), MEMORY.current_usage(), Vec::new());
        MEMORY.reset_peak_usage();
        for index in 0..n_inputs {
            let mut draw = Draw { key: key.fold(index as u64), next: 0 };
            let damaged = match self.damage {
                Damage::Bytes => bytes(&self.whole, &mut draw),
                Damage::Json => json_document(&self.whole, &mut draw),
                Damage::SafetensorsHeader => header(&self.whole, &mut draw),
            };
            std::fs::write(&self.path, &damaged).expect("written");
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.read)(self.folder.path()))) {
                let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                panics.push(format!("input {index}: {}\n{}", text.unwrap_or_default(), String::from_utf8_lossy(&damaged)));
            }
        }
        Outcome { panics, peak_bytes: MEMORY.peak_usage().saturating_sub(before), seconds: start.elapsed().as_secs_f64() }
    }
}

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

struct Draw {
    key: Key,
    next: u64,
}

impl Draw {
    /// A number below `n`, or 0.
    fn below(&mut self, n: usize) -> usize {
        self.next += 1;
        if n == 0 { 0 } else { self.key.below(self.next, n as u64) as usize }
    }
}

fn bytes(whole: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..=draw.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = draw.below(bytes.len());
        let length = 1 + draw.below(16.min(bytes.len() - at));
        match draw.below(7) {
            0 => bytes[at] ^= 1 << draw.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'9'][draw.below(8)],
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let piece = bytes[at..at + length].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => bytes.truncate(at),
            5 => {
                let number = [u64::MAX, u64::MAX / 2, 1 << 32, 0, 1 << 40][draw.below(5)].to_le_bytes();
                let n_bytes = [2, 4, 8][draw.below(3)].min(bytes.len() - at);
                bytes[at..at + n_bytes].copy_from_slice(&number[..n_bytes]);
            }
            _ => {
                let other = draw.below(bytes.len());
                bytes.swap(at, other);
            }
        }
    }
    bytes
}

fn json_document(whole: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(whole).expect("the file is JSON");
    for _ in 0..=draw.below(3) {
        damage_value(&mut value, draw);
    }
    // Now and then cut, as by a full disk.
    let text = value.to_string().into_bytes();
    if draw.below(20) == 0 { text[..draw.below(text.len())].to_vec() } else { text }
}

fn header(whole: &[u8], draw: &mut Draw) -> Vec<u8> {
    let length = u64::from_le_bytes(whole[..8].try_into().expect("eight bytes")) as usize;
    let text = json_document(&whole[8..8 + length], draw);
    [&(text.len() as u64).to_le_bytes(), text.as_slice(), &whole[8 + length..]].concat()
}

/// Changes one value somewhere in the document; the deeper, the likelier.
fn damage_value(value: &mut Value, draw: &mut Draw) {
    match value {
        Value::Object(fields) if !fields.is_empty() && draw.below(8) > 0 => {
            let key = fields.keys().nth(draw.below(fields.len())).expect("there are as many").clone();
            match draw.below(12) {
                0 => drop(fields.remove(&key)),
                1 => {
                    let copy = fields[&key].clone();
                    fields.insert(format!("{key}2"), copy);
                }
                _ => damage_value(&mut fields[&key], draw),
            }
        }
        Value::Array(items) if !items.is_empty() && draw.below(8) > 0 => {
            let index = draw.below(items.len());
            match draw.below(12) {
                0 => drop(items.remove(index)),
                1 => items.push(items[index].clone()),
                _ => damage_value(&mut items[index], draw),
            }
        }
        other => {
            let text = other.as_str().unwrap_or("x").to_owned();
            let candidates = [
                json!(null),
                json!(true),
                json!(0),
                json!(1),
                json!(-1),
                json!(2),
                json!(3),
                json!(7),
                json!(0.5),
                json!(1e300),
                json!(u64::MAX),
                json!(i64::MIN),
                json!(1u64 << 62),
                json!(1u64 << 40),
                json!(1u64 << 31),
                json!(u32::MAX),
                json!(""),
                json!([]),
                json!({}),
                json!([1, -1]),
                json!([u64::MAX, u64::MAX]),
                json!(text.repeat(2)),
                json!("é☕\u{0}"),
                json!("(?=("),
                json!(text.chars().rev().collect::<String>()),
            ];
            *other = candidates[draw.below(candidates.len())].clone();
        }
    }
}
