//! The header of a safetensors file: eight bytes of length, JSON, and where in the rest each tensor lies.

use super::{Element, Entry, Fault};
use crate::files::read_exact_at;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::fs::File;

/// The longest header that safetensors itself accepts.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The tensors in a file of `size` bytes.
pub(super) fn entries(file: &File, size: u64) -> Result<Vec<(String, Entry)>, Fault> {
    let mut length = [0; 8];
    if size < 8 {
        return Err(format!("not a safetensors file: only {size} bytes").into());
    }
    read_exact_at(file, &mut length, 0)?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes.saturating_add(8) > size || header_bytes > MAX_HEADER_BYTES {
        return Err(format!("truncated or not safetensors: the header claims {header_bytes} bytes, the file has {size}").into());
    }
    let mut header = vec![0; header_bytes as usize];
    read_exact_at(file, &mut header, 8)?;
    // Not `SafeTensors::read_metadata`, which wants the whole file in memory.
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| format!("the safetensors header is damaged: {error}"))?;
    let data_start = header_bytes + 8;
    let expected = data_start.saturating_add(metadata.data_len() as u64);
    if size < expected {
        return Err(format!("truncated: {size} bytes, the header promises {expected}; copy or download it again").into());
    }
    let entry = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let element = match info.dtype {
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::Bf16,
            Dtype::F64 => Element::F64,
            other => Element::Other(format!("{other:?}")),
        };
        (name, Entry { element, shape: info.shape.clone(), start: data_start + info.data_offsets.0 as u64, strides: None })
    };
    Ok(metadata.tensors().into_iter().map(entry).collect())
}
