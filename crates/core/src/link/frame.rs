//! What goes over the network, as far as it can be read without a key.
//!
//! ```text
//! head:   "gs", version, type
//! Hello:  head, key id, our index,              first message, code under the key, code under a cookie
//! Reply:  head, our index, their index,         second message, code under the key
//! Proof:  head, their index,                    third message, code under the key
//! Data:   head, their index, counter,           kind and payload, encrypted
//! Cookie: head, their index, cookie,            code under the key
//! Refusal: head, their index, why
//! ```
//!
//! Numbers are little-endian. An index is what the receiver of later frames calls the handshake, or session.

use super::keyring::KeyId;
use super::noise::{ClusterKey, Code, FIRST, TAG};

const MAGIC: [u8; 2] = [0x67, 0x73];
/// Of frames, in their third byte.
pub const VERSION: u8 = 3;
const HEAD: usize = 4;
const CODE: usize = size_of::<Code>();
/// Bytes of a Cookie.
const COOKIE: usize = HEAD + 4 + 2 * CODE;
/// Bytes of a Hello.
pub const HELLO: usize = HEAD + KeyId::LEN + 4 + FIRST + 2 * CODE;
/// Bytes around an encrypted payload and its kind.
pub const OVERHEAD: usize = HEAD + 4 + 8 + 1 + TAG;

/// How the receiver of a frame finds its session or handshake.
pub type Index = u32;

/// A frame, not decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed<'a> {
    /// Begins a handshake.
    Hello {
        /// Of the key that it is made with.
        key: KeyId,
        /// The sender's.
        index: Index,
        /// Noise's first message.
        first: &'a [u8],
        /// What the code is over.
        coded: &'a [u8],
        /// Under the key.
        code: Code,
        /// What the second code is over.
        cookie_coded: &'a [u8],
        /// Under a cookie, or zeros.
        cookie_code: Code,
    },
    /// Answers it.
    Reply {
        /// The sender's.
        index: Index,
        /// The receiver's.
        to: Index,
        /// Noise's second message.
        second: &'a [u8],
        /// What the code is over.
        coded: &'a [u8],
        /// Under the Hello's key: Noise's message says nothing of the indices.
        code: Code,
    },
    /// Ends it.
    Proof {
        /// The receiver's.
        to: Index,
        /// Noise's third message.
        third: &'a [u8],
        /// What the code is over.
        coded: &'a [u8],
        /// Under the Hello's key: Noise's state does not survive a message that is forged.
        code: Code,
    },
    /// Anything else.
    Data {
        /// The receiver's.
        to: Index,
        /// Which of the session's frames.
        counter: u64,
        /// The kind and the payload.
        encrypted: &'a [u8],
    },
    /// Why a Hello is not answered; not authentic.
    Refusal {
        /// The receiver's.
        to: Index,
        /// See [`super::joins::TurnedAway`].
        why: u8,
    },
    /// What the next Hello has to show.
    Cookie {
        /// The receiver's.
        to: Index,
        /// The cookie.
        cookie: Code,
        /// Under the Hello's key, over all before.
        code: Code,
        /// What the code is over.
        coded: &'a [u8],
    },
}

/// Why bytes are no frame. They are dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Too short, or not ours at all.
    #[error("not a gossd frame")]
    NotAFrame,
    /// Another format version.
    #[error("a frame of another gossd version")]
    Version,
}

/// Reads a frame's head.
pub fn read(frame: &[u8]) -> Result<Sealed<'_>, FrameError> {
    let (head, mut rest) = frame.split_first_chunk::<HEAD>().ok_or(FrameError::NotAFrame)?;
    if !head.starts_with(&MAGIC) {
        return Err(FrameError::NotAFrame);
    }
    if head[2] != VERSION {
        return Err(FrameError::Version);
    }
    let rest = &mut rest;
    let sealed = match head[3] {
        1 if frame.len() == HELLO => {
            let key = KeyId::of(take(rest)?);
            let index = Index::from_le_bytes(take(rest)?);
            let (first, mut tail) = rest.split_at(FIRST);
            let (coded, cookie_coded) = (&frame[..HELLO - 2 * CODE], &frame[..HELLO - CODE]);
            let [code, cookie_code] = [take(&mut tail)?, take(&mut tail)?];
            Sealed::Hello { key, index, first, coded, code, cookie_coded, cookie_code }
        }
        2 => {
            let [index, to] = [take(rest)?, take(rest)?].map(Index::from_le_bytes);
            let (second, code) = rest.split_last_chunk().ok_or(FrameError::NotAFrame)?;
            Sealed::Reply { index, to, second, coded: &frame[..frame.len() - CODE], code: *code }
        }
        3 => {
            let to = Index::from_le_bytes(take(rest)?);
            let (third, code) = rest.split_last_chunk().ok_or(FrameError::NotAFrame)?;
            Sealed::Proof { to, third, coded: &frame[..frame.len() - CODE], code: *code }
        }
        4 => {
            let to = Index::from_le_bytes(take(rest)?);
            Sealed::Data { to, counter: u64::from_le_bytes(take(rest)?), encrypted: rest }
        }
        5 if frame.len() == COOKIE => {
            let to = Index::from_le_bytes(take(rest)?);
            let cookie = take(rest)?;
            Sealed::Cookie { to, cookie, code: take(rest)?, coded: &frame[..COOKIE - CODE] }
        }
        6 => {
            let to = Index::from_le_bytes(take(rest)?);
            let [why] = take(rest)?;
            Sealed::Refusal { to, why }
        }
        _ => return Err(FrameError::NotAFrame),
    };
    Ok(sealed)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], FrameError> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(FrameError::NotAFrame)?;
    *bytes = rest;
    Ok(*taken)
}

/// A Hello, with the code under a cookie if there is one.
pub fn hello((id, key): (KeyId, &ClusterKey), index: Index, first: &[u8], cookie: Option<&Code>) -> Vec<u8> {
    let mut frame = [&head(1)[..], &id.bytes(), &index.to_le_bytes(), first].concat();
    frame.extend(key.code(&frame));
    let shown = cookie.map_or([0; CODE], |cookie| super::noise::code(cookie, &frame));
    frame.extend(shown);
    frame
}

/// A Reply.
pub fn reply(key: &ClusterKey, index: Index, to: Index, second: &[u8]) -> Vec<u8> {
    let mut frame = [&head(2)[..], &index.to_le_bytes(), &to.to_le_bytes(), second].concat();
    frame.extend(key.code(&frame));
    frame
}

/// A Proof.
pub fn proof(key: &ClusterKey, to: Index, third: &[u8]) -> Vec<u8> {
    let mut frame = [&head(3)[..], &to.to_le_bytes(), third].concat();
    frame.extend(key.code(&frame));
    frame
}

/// Data.
pub fn data(to: Index, counter: u64, encrypted: &[u8]) -> Vec<u8> {
    [&head(4)[..], &to.to_le_bytes(), &counter.to_le_bytes(), encrypted].concat()
}

/// A Cookie.
pub fn cookie(key: &ClusterKey, to: Index, cookie: &Code) -> Vec<u8> {
    let mut frame = [&head(5)[..], &to.to_le_bytes(), cookie].concat();
    frame.extend(key.code(&frame));
    frame
}

/// A Refusal.
pub fn refusal(to: Index, why: u8) -> Vec<u8> {
    [&head(6)[..], &to.to_le_bytes(), &[why]].concat()
}

fn head(kind: u8) -> [u8; HEAD] {
    [MAGIC[0], MAGIC[1], VERSION, kind]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_frame_comes_back_and_is_told_from_others() {
        let key = ClusterKey::new(&[1; 32], "c");
        let id = KeyId::of([9; 4]);
        let frame = hello((id, &key), 7, &[5; FIRST], Some(&[3; CODE]));
        let Ok(Sealed::Hello { key: with, index: 7, first, coded, code, cookie_coded, cookie_code }) =
            read(&frame)
        else {
            panic!("a Hello")
        };
        assert!(with == id && first == [5; FIRST] && key.is_code_of(&code, coded));
        assert_eq!(cookie_code, super::super::noise::code(&[3; CODE], cookie_coded));
        let frame = reply(&key, 1, 2, b"x");
        let Ok(Sealed::Reply { index: 1, to: 2, second: b"x", coded, code }) = read(&frame) else {
            panic!("a Reply")
        };
        assert!(key.is_code_of(&code, coded));
        let frame = proof(&key, 2, b"x");
        let Ok(Sealed::Proof { to: 2, third: b"x", coded, code }) = read(&frame) else { panic!("a Proof") };
        assert!(key.is_code_of(&code, coded));
        assert_eq!(read(&data(2, 3, b"x")), Ok(Sealed::Data { to: 2, counter: 3, encrypted: b"x" }));
        let frame = cookie(&key, 2, &[4; CODE]);
        let Ok(Sealed::Cookie { to: 2, cookie, code, coded }) = read(&frame) else { panic!("a Cookie") };
        assert!(cookie == [4; CODE] && key.is_code_of(&code, coded));
        assert!(frame.len() < HELLO, "no answer is larger than its question");
        assert_eq!(read(&refusal(2, 1)), Ok(Sealed::Refusal { to: 2, why: 1 }));
        assert_eq!(read(b"GET / HTTP/1.1"), Err(FrameError::NotAFrame));
        assert_eq!(read(&[&frame[..], b"x"].concat()), Err(FrameError::NotAFrame));
        let mut newer = frame;
        newer[2] += 1;
        assert_eq!(read(&newer), Err(FrameError::Version));
    }

    proptest! {
        #[test]
        fn no_bytes_can_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0..9_u8) {
            let _ = read(&bytes);
            let _ = read(&[&head(kind)[..], &bytes].concat());
        }
    }
}
