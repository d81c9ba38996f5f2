//! Environment blocks.

use super::codec::{Layout, crc32, decode, encode};

/// A block: its checksum is made right, or no damage would get past it. What was read is written and read again.
pub fn environment(data: &[u8]) {
    let mut block = vec![0; 5];
    block.extend_from_slice(data);
    for (layout, header) in [(Layout::Single, 4), (Layout::Redundant, 5)] {
        let (head, rest) = block.split_at_mut(header);
        head[..4].copy_from_slice(&crc32(rest).to_le_bytes());
        let Ok((environment, flags)) = decode(&block, layout) else { continue };
        if let Ok(written) = encode(&environment, layout, block.len() + 8, flags) {
            assert_eq!(decode(&written, layout).ok(), Some((environment, flags)));
        }
    }
}
