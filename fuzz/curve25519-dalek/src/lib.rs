//! A Diffie-Hellman that protects nothing and costs nothing, with the names that `snow` uses. With the real one, handshakes
//! would take most of the time of a fuzzer. What depends on keys still does: both ends get the same secret, and other keys
//! give another one.
//!
//! No build of gossd can contain it: only the fuzzers' workspace, which is not gossd's, replaces the real crate.

pub mod montgomery {
    /// A number instead of a point of the curve.
    pub struct MontgomeryPoint(pub [u8; 32]);

    impl MontgomeryPoint {
        /// Odd in both halves: different secrets have different points.
        const BASE: Self = Self([
            9, 0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 5, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0,
        ]);

        pub fn mul_base_clamped(secret: [u8; 32]) -> Self {
            Self::BASE.mul_clamped(secret)
        }

        pub fn mul_clamped(self, secret: [u8; 32]) -> Self {
            let mut product = [0; 32];
            for half in [0..16, 16..32] {
                let number = |bytes: &[u8; 32]| {
                    u128::from_le_bytes(bytes[half.clone()].try_into().expect("half of it"))
                };
                let of_half = number(&self.0).wrapping_mul(number(&secret));
                product[half.clone()].copy_from_slice(&of_half.to_le_bytes());
            }
            Self(product)
        }

        pub fn to_bytes(&self) -> [u8; 32] {
            self.0
        }
    }
}
