//! Who may ask: whoever shows a token.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;

/// How far the clock of one who issues tokens may be off, seconds.
const CLOCK_SKEW_SECONDS: u64 = 60;

/// What a client must show in its `Authorization` header, after `Bearer `.
#[derive(Clone)]
pub enum Auth {
    /// That text.
    Token(String),
    /// A JSON web token that is signed (HS256) with that secret. It must say until when it is
    /// valid (`exp`), or that it was issued less than a minute ago (`iat`).
    Jwt(Vec<u8>),
}

impl std::fmt::Debug for Auth {
    // Without the secrets.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Token(_) => "Token",
            Self::Jwt(_) => "Jwt",
        })
    }
}

/// Why somebody may not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no token.
    #[error("missing token: send it as \"Authorization: Bearer …\"")]
    Missing,
    /// It is not the token, or is not signed with the secret.
    #[error("invalid token")]
    Invalid,
    /// It was valid, or will be.
    #[error("stale token")]
    Stale,
}

#[derive(Deserialize)]
struct JwtHeader {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    exp: Option<u64>,
    iat: Option<u64>,
    nbf: Option<u64>,
}

impl Auth {
    /// Checks what a client shows.
    ///
    /// # Errors
    /// Says why it is not enough.
    pub(super) fn check(&self, authorization: Option<&[u8]>) -> Result<(), AuthError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.check_at(authorization, now)
    }

    fn check_at(&self, authorization: Option<&[u8]>, now: u64) -> Result<(), AuthError> {
        let shown = authorization.ok_or(AuthError::Missing)?;
        let (scheme, token) = shown.split_at_checked(7).ok_or(AuthError::Missing)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(AuthError::Missing);
        }
        match self {
            Self::Token(expected) => check_token(expected.as_bytes(), token.trim_ascii()),
            Self::Jwt(secret) => check_jwt(secret, token.trim_ascii(), now),
        }
    }
}

fn mac(secret: &[u8], content: &[u8]) -> Result<Hmac<Sha256>, AuthError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| AuthError::Invalid)?;
    mac.update(content);
    Ok(mac)
}

/// Compares hashes that are keyed with what is expected, so that the time that it takes says
/// nothing about where two texts differ.
fn check_token(expected: &[u8], shown: &[u8]) -> Result<(), AuthError> {
    let hash = mac(expected, expected)?.finalize().into_bytes();
    mac(expected, shown)?.verify_slice(&hash).map_err(|_| AuthError::Invalid)
}

fn check_jwt(secret: &[u8], token: &[u8], now: u64) -> Result<(), AuthError> {
    let mut parts = token.rsplitn(2, |byte| *byte == b'.');
    let (Some(signature), Some(signed)) = (parts.next(), parts.next()) else {
        return Err(AuthError::Invalid);
    };
    let decode = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::Invalid);
    // ORDER: nothing in the token is read before its signature was checked.
    let signature = decode(signature)?;
    mac(secret, signed)?.verify_slice(&signature).map_err(|_| AuthError::Invalid)?;
    let dot = signed.iter().position(|byte| *byte == b'.').ok_or(AuthError::Invalid)?;
    let (header, claims) = (decode(&signed[..dot])?, decode(&signed[dot + 1..])?);
    let header: JwtHeader = serde_json::from_slice(&header).map_err(|_| AuthError::Invalid)?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| AuthError::Invalid)?;
    if header.alg != "HS256" {
        return Err(AuthError::Invalid);
    }
    let recent = |issued: u64| issued.abs_diff(now) <= CLOCK_SKEW_SECONDS;
    let begun = claims.nbf.is_none_or(|begin| begin <= now.saturating_add(CLOCK_SKEW_SECONDS));
    let valid = match claims.exp {
        Some(end) => now < end,
        None => claims.iat.is_some_and(recent),
    };
    if begun && valid { Ok(()) } else { Err(AuthError::Stale) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn jwt(header: &str, claims: &str, secret: &[u8]) -> Vec<u8> {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = mac(secret, signed.as_bytes()).unwrap().finalize().into_bytes();
        format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(signature)).into_bytes()
    }

    fn check(auth: &Auth, shown: &[u8]) -> Result<(), AuthError> {
        auth.check_at(Some(shown), NOW)
    }

    #[test]
    fn a_token_must_be_the_token() {
        let auth = Auth::Token("open sesame".into());
        assert_eq!(check(&auth, b"Bearer open sesame"), Ok(()));
        assert_eq!(check(&auth, b"bearer  open sesame"), Ok(()));
        assert_eq!(check(&auth, b"Bearer open sesam"), Err(AuthError::Invalid));
        assert_eq!(check(&auth, b"Bearer open sesame "), Ok(()));
        assert_eq!(check(&auth, b"Bearer "), Err(AuthError::Invalid));
        assert_eq!(check(&auth, b"Basic open sesame"), Err(AuthError::Missing));
        assert_eq!(check(&auth, b""), Err(AuthError::Missing));
        assert_eq!(auth.check_at(None, NOW), Err(AuthError::Missing));
    }

    #[test]
    fn a_jwt_must_be_signed_and_of_now() {
        let auth = Auth::Jwt(vec![7; 32]);
        let header = r#"{"alg":"HS256","typ":"JWT"}"#;
        let ours = |claims: &str| check(&auth, &jwt(header, claims, &[7; 32]));
        assert_eq!(ours(&format!(r#"{{"iat":{NOW}}}"#)), Ok(()));
        assert_eq!(ours(&format!(r#"{{"iat":{}}}"#, NOW - 61)), Err(AuthError::Stale));
        assert_eq!(ours(&format!(r#"{{"iat":{}}}"#, NOW + 61)), Err(AuthError::Stale));
        assert_eq!(ours(&format!(r#"{{"iat":1,"exp":{}}}"#, NOW + 1)), Ok(()));
        assert_eq!(ours(&format!(r#"{{"iat":{NOW},"exp":{NOW}}}"#)), Err(AuthError::Stale));
        let later = format!(r#"{{"exp":{},"nbf":{}}}"#, NOW + 999, NOW + 99);
        assert_eq!(ours(&later), Err(AuthError::Stale));
        assert_eq!(ours("{}"), Err(AuthError::Stale));
        assert_eq!(ours("[]"), Err(AuthError::Invalid));
        let claims = format!(r#"{{"iat":{NOW}}}"#);
        assert_eq!(check(&auth, &jwt(header, &claims, &[8; 32])), Err(AuthError::Invalid));
        for other in [r#"{"alg":"none"}"#, r#"{"alg":"HS512"}"#, "{}"] {
            assert_eq!(check(&auth, &jwt(other, &claims, &[7; 32])), Err(AuthError::Invalid));
        }
        for broken in ["Bearer a.b.c", "Bearer ...", "Bearer .", "Bearer a", "Bearer \u{7f}.é.x"] {
            assert_eq!(check(&auth, broken.as_bytes()), Err(AuthError::Invalid), "{broken}");
        }
    }
}
