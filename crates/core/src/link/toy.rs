//! A Diffie-Hellman that protects nothing and costs nothing, for tests of many agents: with the real one, they would do little
//! else than handshakes. Both ends get the same secret, and other keys give another one. It is built into this crate's own tests
//! only; those of the handshake itself, and all with sockets, have the real one.

use std::cell::Cell;

use snow::types::{Dh, Random};

thread_local! {
    static PLAYS: Cell<bool> = const { Cell::new(false) };
}

/// Handshakes of this thread protect nothing from now on.
pub(super) fn play() {
    PLAYS.set(true);
}

/// The toy, if this thread plays.
pub(super) fn dh() -> Option<Box<dyn Dh>> {
    PLAYS.get().then(|| Box::<Product>::default() as Box<dyn Dh>)
}

/// Numbers instead of points of a curve, and products of them.
#[derive(Default)]
struct Product {
    private: [u8; 32],
    public: [u8; 32],
}

/// Odd: different secrets have different products.
const BASE: [u8; 32] = [9; 32];

fn product(one: &[u8], other: &[u8; 32]) -> [u8; 32] {
    let mut product = [0; 32];
    for half in [0..16, 16..32] {
        let number = |bytes: &[u8]| u128::from_le_bytes(bytes[half.clone()].try_into().expect("half of it"));
        product[half.clone()].copy_from_slice(&number(one).wrapping_mul(number(other)).to_le_bytes());
    }
    product
}

impl Dh for Product {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        self.private.copy_from_slice(privkey);
        self.public = product(&BASE, &self.private);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut private = [0; 32];
        rng.try_fill_bytes(&mut private)?;
        self.set(&private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.private
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        out[..32].copy_from_slice(&product(&pubkey[..32], &self.private));
        Ok(())
    }
}
