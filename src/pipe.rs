//! Pipes to child processes: several pieces at once, so that a fast sender costs few system calls.

use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Pieces that one system call takes.
const MAX_SLICES: usize = 16;

/// Writes all of `pieces` in order.
pub async fn write_all(pipe: &mut (impl AsyncWrite + Unpin), pieces: &mut [Bytes]) -> io::Result<()> {
    let mut first = 0;
    while let Some(rest) = pieces.get_mut(first..).filter(|rest| !rest.is_empty()) {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = rest.len().min(MAX_SLICES);
        for (slice, piece) in slices.iter_mut().zip(rest.iter()) {
            *slice = IoSlice::new(piece);
        }
        let mut written = pipe.write_vectored(slices.get(..count).unwrap_or_default()).await?;
        if written == 0 && rest.iter().take(count).any(|piece| !piece.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        for piece in rest {
            let taken = written.min(piece.len());
            piece.advance(taken);
            written -= taken;
            if !piece.is_empty() {
                break;
            }
            first += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_arrive_whole_and_in_order_through_a_narrow_pipe() {
        let (mut ours, mut theirs) = tokio::io::duplex(100);
        let mut pieces: Vec<Bytes> = (0..50_u8).map(|n| vec![n; usize::from(n) * 7].into()).collect();
        let expected = pieces.concat();
        let mut read = Vec::new();
        let write = async move { write_all(&mut ours, &mut pieces).await };
        let (written, ended) =
            tokio::join!(write, tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut read));
        written.unwrap();
        ended.unwrap();
        assert_eq!(read, expected);
    }
}
