//! The form of a message: a 32-bit length and that much JSON.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest message either end accepts, bytes.
const MESSAGE_LIMIT: u32 = 1 << 20;

/// Reads one message.
pub(crate) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    let length = stream.read_u32().await?;
    if length > MESSAGE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too large"));
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}

/// Writes one message.
pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> io::Result<()> {
    let text = zeroize::Zeroizing::new(serde_json::to_vec(message)?);
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= MESSAGE_LIMIT);
    let Some(length) = length else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too large"));
    };
    let mut frame = zeroize::Zeroizing::new(length.to_be_bytes().to_vec());
    frame.extend_from_slice(&text);
    stream.write_all(&frame).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::{super::Call, *};

    #[tokio::test]
    async fn a_message_that_is_too_long_or_ends_in_the_middle_is_an_error() {
        for bytes in [&[0xff; 8][..], &[0, 0, 0, 9, b'{'], &[0, 0], &[0, 0, 0, 2, b'{', b'x']] {
            let mut bytes = bytes;
            read::<Call>(&mut bytes).await.unwrap_err();
        }
    }
}
