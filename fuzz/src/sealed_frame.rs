//! Frames as they come from the network: one that cannot be decrypted gets the right reason, and none is decrypted that
//! was not encrypted here.

use std::net::SocketAddr;

use gossd_core::link::keyring::{KeyId, Keyring};
use gossd_core::link::seal::{OVERHEAD, Opened, SealError, Sealer, VERSION};
use gossd_core::link::wire::{self, Header, Kind, MAX_PAYLOAD};

use super::input::Input;

/// Where the ciphertext starts.
const HEADER: usize = 3 + 4 + 24;

thread_local! {
    static SEALERS: [Sealer; 3] = {
        let keyring = |keys: [u8; 2]| Keyring::parse(&keys.map(key).join("\n")).expect("two keys");
        [Sealer::new(keyring([1, 2]), "c"), Sealer::new(keyring([1, 2]), "d"), Sealer::new(keyring([3, 4]), "c")]
    };
}

/// A line of a key file.
fn key(n: u8) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut line = vec![DIGITS[usize::from(n)]; 42];
    line.extend(b"A=");
    String::from_utf8(line).expect("letters")
}

/// The key id as it stands in a header.
fn spelled(id: KeyId) -> [u8; 4] {
    u32::from_str_radix(&id.to_string(), 16).expect("hexadecimal digits").to_be_bytes()
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    SEALERS.with(|[ours, cluster, stranger]| match input.byte() % 4 {
        0 => from_outside(ours, input.0),
        1 => forged(ours, input),
        2 => sealed([ours, cluster, stranger], input),
        _ => inside(input.0),
    });
}

/// Bytes of a stranger.
fn from_outside(sealer: &Sealer, bytes: &[u8]) {
    let want = if bytes.len() < OVERHEAD || !bytes.starts_with(b"gs") {
        SealError::NotAFrame
    } else if bytes[2] != VERSION {
        SealError::Version
    } else if !sealer.keyring.ids().any(|id| spelled(id) == bytes[3..7]) {
        SealError::UnknownKey
    } else {
        SealError::BadSeal
    };
    match sealer.open(bytes) {
        Err(error) => assert_eq!(error, want),
        Ok(opened) => {
            assert_eq!(want, SealError::BadSeal, "opened without a right header");
            let nonce = bytes[HEADER - 24..HEADER].try_into().expect("24 bytes");
            assert_eq!(
                sealer.seal(opened.key, nonce, &opened.plain),
                bytes,
                "opened what was not sealed here"
            );
        }
    }
}

/// A valid header before any bytes.
fn forged(sealer: &Sealer, mut input: Input<'_>) {
    let keyring = &sealer.keyring;
    let ids: Vec<KeyId> = keyring.ids().collect();
    let mut frame = [&b"gs"[..], &[VERSION]].concat();
    frame.extend(spelled(ids[usize::from(input.byte()) % ids.len()]));
    frame.extend(input.0);
    from_outside(sealer, &frame);
}

/// A frame of ours can be decrypted, and any change in it is noticed.
fn sealed([ours, cluster, stranger]: [&Sealer; 3], mut input: Input<'_>) {
    let ids: Vec<KeyId> = ours.keyring.ids().collect();
    let with = ids[usize::from(input.byte()) % ids.len()];
    let (change, cut, nonce) = (input.number(), input.byte(), input.byte());
    let plain = input.0;
    let frame = ours.seal(with, [nonce; 24], plain);
    assert_eq!(frame.len(), plain.len() + OVERHEAD);
    assert_eq!(ours.open(&frame), Ok(Opened { plain: plain.to_vec(), key: with }));
    assert_eq!(cluster.open(&frame), Err(SealError::BadSeal));
    assert_eq!(stranger.open(&frame), Err(SealError::UnknownKey));
    let mut changed = frame.clone();
    let bit = usize::from(change) % (8 * frame.len());
    changed[bit / 8] ^= 1 << (bit % 8);
    assert!(ours.open(&changed).is_err(), "bit {bit} of {}", frame.len());
    let shorter = &frame[..frame.len() - 1 - usize::from(cut) % frame.len()];
    assert!(ours.open(shorter).is_err());
}

/// The content of a decrypted frame.
fn inside(plain: &[u8]) {
    if let Ok((header, payload)) = wire::split(plain) {
        assert!(payload.len() < plain.len());
        assert!(payload.len() <= MAX_PAYLOAD);
        comes_back(header, payload);
    }
    let from = SocketAddr::from(([10, 0, 0, 1], 8002));
    comes_back(Header { session: [1; 8], counter: 7, from, kind: Kind::Push.number() }, plain);
}

fn comes_back(header: Header, payload: &[u8]) {
    assert_eq!(wire::split(&wire::pack(header, payload)), Ok((header, payload)));
}
