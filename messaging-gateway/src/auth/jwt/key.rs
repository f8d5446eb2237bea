//! The keys that tokens are verified with: each has one algorithm, whatever a token says of itself.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::Algorithm;
use messaging_core::{Error, ErrorKind, Result};
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};

/// A key that tokens are verified with. It has one algorithm; a token that names another is refused.
#[derive(Clone)]
pub struct Key {
    algorithm: Algorithm,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Secret(hmac::Key),
    /// Of RSA its two numbers as PKCS #1 has them, of an elliptic curve the point.
    Public(UnparsedPublicKey<Box<[u8]>>),
}

impl Key {
    /// HMAC with SHA-256. Who verifies with the secret can also sign with it.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if the secret has less than 32 bytes, which RFC 7518 asks for: a shorter one can be
    /// guessed from a single token.
    pub fn hs256(secret: impl AsRef<[u8]>) -> Result<Self> {
        let secret = secret.as_ref();
        if secret.len() < 32 {
            let text = "an HS256 secret has at least 32 bytes; `openssl rand -hex 32` makes one";
            return Err(wrong(text));
        }
        let material = Material::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret));
        Ok(Self { algorithm: Algorithm::HS256, material })
    }

    /// RSA (PKCS #1 v1.5) with SHA-256; a public key of 2048 to 8192 bits in PEM.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if it is none.
    pub fn rs256(public_pem: impl AsRef<[u8]>) -> Result<Self> {
        let what = "an RS256 key";
        let (label, der) = pem(public_pem.as_ref(), what)?;
        let numbers = if label == "RSA PUBLIC KEY" { Some(&*der) } else { point_or_numbers(&der, RSA) };
        let numbers =
            numbers.filter(|numbers| bits(numbers).is_some_and(|bits| (2048..=8192).contains(&bits)));
        let numbers = numbers
            .ok_or_else(|| wrong(format!("{what} is an RSA key of 2048 to 8192 bits; this is another")))?;
        Ok(Self::public(Algorithm::RS256, &RSA_PKCS1_2048_8192_SHA256, numbers))
    }

    /// ECDSA on the curve P-256 with SHA-256; a public key in PEM.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if it is none.
    pub fn es256(public_pem: impl AsRef<[u8]>) -> Result<Self> {
        let what = "an ES256 key";
        let (_, der) = pem(public_pem.as_ref(), what)?;
        let point = point_or_numbers(&der, P256).filter(|point| point.len() == 65 && point[0] == 4);
        let point =
            point.ok_or_else(|| wrong(format!("{what} is a point on the curve P-256; this is another")))?;
        Ok(Self::public(Algorithm::ES256, &ECDSA_P256_SHA256_FIXED, point))
    }

    fn public(algorithm: Algorithm, by: &'static dyn VerificationAlgorithm, key: &[u8]) -> Self {
        Self { algorithm, material: Material::Public(UnparsedPublicKey::new(by, key.into())) }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether who made the signature has this secret (which is compared in constant time), or the private key of this one.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Secret(secret) => hmac::verify(secret, message, signature).is_ok(),
            Material::Public(key) => key.verify(message, signature).is_ok(),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

fn wrong(text: impl Into<String>) -> Error {
    messaging_core::__private::error(ErrorKind::Configuration, text.into())
}

/// The label and content of the one block of a PEM text.
fn pem<'a>(text: &'a [u8], what: &str) -> Result<(&'a str, Vec<u8>)> {
    let block = || {
        let text = std::str::from_utf8(text).ok()?.trim().strip_prefix("-----BEGIN ")?;
        let (label, text) = text.split_once("-----")?;
        let body = text.strip_suffix("-----")?.strip_suffix(label)?.strip_suffix("-----END ")?;
        let body: String = body.split_ascii_whitespace().collect();
        Some((label, STANDARD.decode(body).ok()?))
    };
    let expected = "in PEM, from \"-----BEGIN PUBLIC KEY-----\" on";
    match block() {
        None => Err(wrong(format!("{what} is one public key {expected}"))),
        Some((label @ ("PUBLIC KEY" | "RSA PUBLIC KEY"), der)) => Ok((label, der)),
        Some((label, _)) => Err(wrong(format!("{what} is a public key {expected}; this is a {label:?}"))),
    }
}

/// `rsaEncryption` with its NULL, and `id-ecPublicKey` with `prime256v1`: the contents of an AlgorithmIdentifier.
const RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
const P256: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];

/// What a SubjectPublicKeyInfo (RFC 5280, 4.1) has inside, if its algorithm is this one.
fn point_or_numbers<'a>(info: &'a [u8], algorithm: &[u8]) -> Option<&'a [u8]> {
    let (info, []) = element(info, 0x30)? else { return None };
    let (found, key) = element(info, 0x30)?;
    let (key, []) = element(key, 0x03)? else { return None };
    // The first byte of a BIT STRING says how many bits of the last one do not count.
    key.strip_prefix(&[0]).filter(|_| found == algorithm)
}

/// How many bits the modulus of an RSAPublicKey (RFC 8017, A.1.1) has.
fn bits(numbers: &[u8]) -> Option<usize> {
    let (numbers, []) = element(numbers, 0x30)? else { return None };
    let (modulus, exponent) = element(numbers, 0x02)?;
    let (_, []) = element(exponent, 0x02)? else { return None };
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    Some(modulus.len() * 8 - modulus.first()?.leading_zeros() as usize)
}

/// The content of the DER element with this tag that comes first, and what comes after it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // 0x80 would be a length that is found out at the end: that is BER.
        0x80 => return None,
        0x81 | 0x82 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (length.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)), rest)
        }
        // Nothing that is a key is longer.
        _ => return None,
    };
    rest.split_at_checked(length).filter(|_| found == tag)
}
