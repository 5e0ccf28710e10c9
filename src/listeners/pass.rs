//! Lines of text with file descriptors beside them, over a Unix socket (`SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Most sockets beside one line: an agent's five, and room for many plugin addresses.
pub(crate) const MAX_SOCKETS: usize = 32;
const MAX_LINE: usize = 16 << 10;

/// Sends a line and a newline, with descriptors beside its first byte.
pub(crate) async fn send(stream: &UnixStream, line: &str, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = [line.as_bytes(), b"\n"].concat();
    if sockets.len() > MAX_SOCKETS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many sockets"));
    }
    let mut sent = 0;
    while sent < bytes.len() {
        sent += stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                if sent == 0
                    && !sockets.is_empty()
                    && !ancillary.push(SendAncillaryMessage::ScmRights(sockets))
                {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                Ok(sendmsg(stream, &[IoSlice::new(&bytes[sent..])], &mut ancillary, SendFlags::NOSIGNAL)?)
            })
            .await?;
    }
    Ok(())
}

/// Receives a line without its newline, and the descriptors beside it. Reads one byte at a time, so that the bytes
/// after the line remain for the next reader; lines are few and short. An end before the newline is an error.
pub(crate) async fn receive(stream: &UnixStream) -> io::Result<(String, Vec<OwnedFd>)> {
    let (mut line, mut sockets) = (Vec::new(), Vec::new());
    loop {
        let mut byte = [0];
        let read = stream
            .async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
                let mut ancillary = RecvAncillaryBuffer::new(&mut space);
                let received = recvmsg(
                    stream,
                    &mut [IoSliceMut::new(&mut byte)],
                    &mut ancillary,
                    RecvFlags::CMSG_CLOEXEC,
                )?;
                for message in ancillary.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        sockets.extend(rights);
                    }
                }
                Ok(received.bytes)
            })
            .await?;
        match (read, byte[0]) {
            (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (_, b'\n') => break,
            (_, byte) => line.push(byte),
        }
        if line.len() > MAX_LINE || sockets.len() > MAX_SOCKETS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than any line"));
        }
    }
    let line = String::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok((line, sockets))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd as _;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_socket_arrives_with_its_line_and_nothing_after_the_line_is_touched() {
        let (one, mut other) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        send(&one, "first", &[listener.as_fd()]).await.unwrap();
        drop(listener);
        send(&one, "second", &[]).await.unwrap();
        let (line, mut sockets) = receive(&other).await.unwrap();
        assert_eq!((line.as_str(), sockets.len()), ("first", 1));
        let listener = TcpListener::from(sockets.remove(0));
        assert_eq!(listener.local_addr().unwrap(), address);
        assert!(std::net::TcpStream::connect(address).is_ok(), "it listened all the time");
        let mut rest = [0; 7];
        other.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"second\n");
    }

    #[tokio::test]
    async fn an_end_or_a_flood_is_an_error() {
        let (one, other) = UnixStream::pair().unwrap();
        let flood = async {
            let long = "x".repeat(MAX_LINE + 2);
            let _ = send(&one, &long, &[]).await;
        };
        let (received, ()) = tokio::join!(receive(&other), flood);
        assert_eq!(received.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (one, other) = UnixStream::pair().unwrap();
        drop(one);
        assert_eq!(receive(&other).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
