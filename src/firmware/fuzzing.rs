//! What fwup says.

use bytes::Bytes;

use super::handshake::Handshake;
use super::progress::Progress;

/// The output of a program that is not necessarily fwup; however it is cut into pieces, the same is heard.
pub fn fwup_output(data: &[u8]) {
    let (mut whole, mut pieces, mut progress) =
        (Handshake::default(), Handshake::default(), Progress::default());
    let text = whole.take(Bytes::copy_from_slice(data));
    let mut heard = Vec::new();
    for piece in data.chunks(2) {
        heard.extend_from_slice(&pieces.take(Bytes::copy_from_slice(piece)));
    }
    assert_eq!((whole, &text[..]), (pieces, &heard[..]));
    progress.see(&text);
    let _ = (progress.percent(), progress.last_line().len());
}
