//! Files that `torch.save` wrote: a zip archive, uncompressed, of a pickle that describes the tensors and a file for each one's numbers.
//!
//! Only what such archives use of the zip format is read (PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.12 to 4.3.16): stored entries, found
//! through the central directory, with 64-bit sizes where it has them. Every place is checked against the file's size before it is read.

use super::{Entry, Fault, pickle};
use crate::files::read_exact_at;
use std::collections::BTreeMap;
use std::fs::File;

/// The longest pickle and directory that are read; those of models with a hundred thousand tensors are a tenth of it.
const MAX_BYTES: u64 = 100_000_000;

/// A file in the archive: where its bytes begin, and how many they are.
#[derive(Clone, Copy, Debug)]
struct Member {
    start: u64,
    n_bytes: u64,
}

/// The tensors in a file of `size` bytes.
pub(super) fn entries(file: &File, size: u64) -> Result<Vec<(String, Entry)>, Fault> {
    let members = members(file, size)?;
    let pickled = members.iter().find_map(|(name, member)| Some((name.strip_suffix("data.pkl")?, *member)));
    let Some((folder, member)) = pickled else {
        return Err("a zip archive without data.pkl: torch.save did not write it".to_owned().into());
    };
    if let Some(order) = members.get(&format!("{folder}byteorder"))
        && bytes_of(file, *order)? != b"little"
    {
        return Err("its numbers are not little-endian; save it again on another machine".to_owned().into());
    }
    let tensors = pickle::state_dict(&bytes_of(file, member)?)?;
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            let entry = entry(&members, folder, tensor).map_err(|message| format!("tensor {name:?} {message}"))?;
            Ok((name, entry))
        })
        .collect()
}

fn entry(members: &BTreeMap<String, Member>, folder: &str, tensor: pickle::Tensor) -> Result<Entry, String> {
    let storage = format!("{folder}data/{}", tensor.storage);
    let member = members.get(&storage).ok_or_else(|| format!("lies in {storage}, which the archive lacks"))?;
    let pickle::Tensor { element, offset, shape, strides, n_stored, .. } = tensor;
    // What is no weight is never read.
    let n_bytes = element.n_bytes().unwrap_or(0);
    let is_whole = n_stored.checked_mul(n_bytes).is_some_and(|needed| needed as u64 <= member.n_bytes);
    let is_empty = shape.contains(&0);
    let last = shape
        .iter()
        .zip(&strides)
        .try_fold(offset, |last, (&extent, &stride)| last.checked_add(extent.saturating_sub(1).checked_mul(stride)?));
    // A tensor repeats elements where a stride is 0: its size has a bound of its own.
    let count = shape.iter().try_fold(1usize, |count, &extent| count.checked_mul(extent));
    let fits = is_empty || last.is_some_and(|last| last < n_stored) && count.is_some_and(|count| count <= n_stored);
    if !is_whole || !fits {
        return Err(format!("reaches beyond its storage: shape {shape:?}, strides {strides:?}, from {offset} on, of {n_stored} elements"));
    }
    let mut row_by_row = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        row_by_row[axis - 1] = row_by_row[axis].saturating_mul(shape[axis].max(1));
    }
    let is_row_by_row =
        is_empty || shape.iter().zip(&strides).zip(&row_by_row).all(|((&extent, stride), usual)| extent == 1 || stride == usual);
    let start = member.start + if is_empty { 0 } else { (offset * n_bytes) as u64 };
    Ok(Entry { element, shape, start, strides: (!is_row_by_row).then_some(strides) })
}

fn bytes_of(file: &File, member: Member) -> Result<Vec<u8>, Fault> {
    if member.n_bytes > MAX_BYTES {
        return Err(format!("its description has {} bytes, more than any model's", member.n_bytes).into());
    }
    let mut bytes = vec![0; member.n_bytes as usize];
    read_exact_at(file, &mut bytes, member.start)?;
    Ok(bytes)
}

/// The files in the archive by name.
fn members(file: &File, size: u64) -> Result<BTreeMap<String, Member>, Fault> {
    let (start, n_bytes, count) = directory(file, size)?;
    let directory = bytes_of(file, Member { start, n_bytes })?;
    let mut members = BTreeMap::new();
    let mut rest = Bytes(&directory);
    for _ in 0..count {
        let (name, mut member) = rest.directory_entry()?;
        let mut local = [0; 30];
        if member.start.checked_add(30).is_none_or(|end| end > size) {
            return Err(damaged());
        }
        read_exact_at(file, &mut local, member.start)?;
        let lengths = [26, 28].map(|at| u64::from(u16::from_le_bytes([local[at], local[at + 1]])));
        member.start += 30 + lengths[0] + lengths[1];
        let is_inside = member.start.checked_add(member.n_bytes).is_some_and(|end| end <= size);
        if !local.starts_with(b"PK\x03\x04") || !is_inside {
            return Err(damaged());
        }
        members.insert(name, member);
    }
    Ok(members)
}

/// Where the central directory is: its start, its length in bytes, and how many entries it has.
fn directory(file: &File, size: u64) -> Result<(u64, u64, u64), Fault> {
    /// The end record without its comment, and the longest comment.
    const END: u64 = 22;
    const COMMENT: u64 = 65_535;
    let start = size.saturating_sub(END + COMMENT);
    let mut tail = vec![0; (size - start) as usize];
    read_exact_at(file, &mut tail, start)?;
    let Some(end) = tail.windows(4).rposition(|window| window == b"PK\x05\x06").filter(|end| end + END as usize <= tail.len()) else {
        let message = match tail.starts_with(b"\x80") || size == 0 {
            true => {
                "not a zip archive: truncated, or from PyTorch before 1.6; save it again with a newer one, or convert it to safetensors"
            }
            false => "truncated or not a file of torch.save: no end of a zip archive; copy or download it again",
        };
        return Err(message.to_owned().into());
    };
    let mut record = Bytes(&tail[end + 10..]);
    let (mut count, mut n_bytes, mut at) = (u64::from(record.u16()?), u64::from(record.u32()?), u64::from(record.u32()?));
    if count == 0xffff || n_bytes == 0xffff_ffff || at == 0xffff_ffff {
        // The 64-bit record, which a locator before the end record points to.
        let locator = end.checked_sub(20).filter(|&locator| tail[locator..].starts_with(b"PK\x06\x07")).ok_or_else(damaged)?;
        let place = Bytes(&tail[locator + 8..]).u64()?;
        if place.checked_add(56).is_none_or(|end| end > size) {
            return Err(damaged());
        }
        let mut record = [0; 56];
        read_exact_at(file, &mut record, place)?;
        let mut fields = Bytes(record.strip_prefix(b"PK\x06\x06").ok_or_else(damaged)?);
        fields.skip(28)?;
        (count, n_bytes, at) = (fields.u64()?, fields.u64()?, fields.u64()?);
    }
    match at.checked_add(n_bytes) {
        Some(end) if end <= size => Ok((at, n_bytes, count)),
        _ => Err(damaged()),
    }
}

fn damaged() -> Fault {
    Fault::Format("damaged: its zip directory does not fit the file; copy or download it again".into())
}

/// Little-endian fields, one after the other.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn skip(&mut self, n_bytes: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(n_bytes).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        Ok(u16::from_le_bytes(self.skip(2)?.try_into().expect("two bytes")))
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.skip(4)?.try_into().expect("four bytes")))
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.skip(8)?.try_into().expect("eight bytes")))
    }

    /// A name, how many bytes it has, and where its local header is.
    fn directory_entry(&mut self) -> Result<(String, Member), Fault> {
        if self.skip(4)? != b"PK\x01\x02" {
            return Err(damaged());
        }
        self.skip(6)?;
        let method = self.u16()?;
        self.skip(8)?;
        let (packed, full) = (self.u32()?, self.u32()?);
        let lengths = [self.u16()?, self.u16()?, self.u16()?].map(usize::from);
        self.skip(8)?;
        let offset = self.u32()?;
        let name = String::from_utf8_lossy(self.skip(lengths[0])?).into_owned();
        let mut extra = Bytes(self.skip(lengths[1])?);
        self.skip(lengths[2])?;
        if method != 0 {
            return Err(format!("{name:?} in it is compressed; torch.save stores files as they are").into());
        }
        let (mut n_bytes, mut packed_bytes, mut start) = (u64::from(full), u64::from(packed), u64::from(offset));
        while extra.0.len() >= 4 {
            let (tag, length) = (extra.u16()?, extra.u16()?);
            let mut field = Bytes(extra.skip(length.into())?);
            // The 64-bit field has, in this order, what did not fit into 32.
            if tag == 1 {
                for value in [&mut n_bytes, &mut packed_bytes, &mut start] {
                    if *value == 0xffff_ffff {
                        *value = field.u64()?;
                    }
                }
            }
        }
        if n_bytes != packed_bytes {
            return Err(damaged());
        }
        Ok((name, Member { start, n_bytes }))
    }
}
