//! The functions that the host lends to the prelude. None of them knows the state: what needs it
//! is asked for by yielding (see `machine.rs`), so that an interrupt leaves nothing behind.
//!
//! None of them ever raises an error of its own. What is wrong is returned, as `false` and a
//! text, or as `false` alone if no work is left; the prelude raises it. An error from here would
//! be the host's own failure.

use std::sync::Arc;

use mlua::{IntoLua, IntoLuaMulti, Lua, LuaString, MultiValue, Table, Value, Variadic};
use secp256k1::{SECP256K1, XOnlyPublicKey, schnorr};
use sha2::{Digest, Sha256};

use super::limits::{
    BYTES_PER_WORK, CALL_BYTES_MAX, SIGNATURE_WORK, STRING_STEP_BYTES, TICK_INSTRUCTIONS,
};
use super::meter::Meter;
use super::pattern::{self, Capture, Fault, Match};

/// What the prelude asks for by yielding.
pub(super) mod request {
    pub(in crate::lua) const GET: i64 = 1;
    pub(in crate::lua) const NUMBER: i64 = 2;
    pub(in crate::lua) const PUT: i64 = 3;
    pub(in crate::lua) const ADD: i64 = 4;
    pub(in crate::lua) const EMIT: i64 = 5;
    pub(in crate::lua) const BROKEN: i64 = 6;
}

/// The work for looking at that many bytes.
pub(super) fn work_for(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX) / BYTES_PER_WORK
}

/// All functions and constants of the host.
pub(super) fn table(lua: &Lua, meter: &Arc<Meter>) -> mlua::Result<Table> {
    let host = lua.create_table()?;
    host.set("GET", request::GET)?;
    host.set("NUMBER", request::NUMBER)?;
    host.set("PUT", request::PUT)?;
    host.set("ADD", request::ADD)?;
    host.set("EMIT", request::EMIT)?;
    host.set("BROKEN", request::BROKEN)?;
    host.set("TICK", TICK_INSTRUCTIONS)?;
    host.set("BYTES", CALL_BYTES_MAX)?;
    host.set("SHORT", STRING_STEP_BYTES)?;
    host.set("nan", f64::NAN)?;
    let noter = meter.clone();
    host.set("note", lua.create_function(move |_, bytes: usize| Ok(noter.note_string(bytes)))?)?;
    let toucher = meter.clone();
    let touch = move |_: &Lua, ()| {
        toucher.touch_memory_limit();
        Ok(())
    };
    host.set("touch", lua.create_function(touch)?)?;
    host.set("metatable", lua.create_function(|_, table: Table| Ok(table.metatable()))?)?;
    let spender = meter.clone();
    let spend = move |_: &Lua, units: i64| Ok(spender.spend(u64::try_from(units).unwrap_or(0)));
    host.set("spend", lua.create_function(spend)?)?;
    add_patterns(lua, meter, &host)?;
    add_cryptography(lua, meter, &host)?;
    Ok(host)
}

fn add_patterns(lua: &Lua, meter: &Arc<Meter>, host: &Table) -> mlua::Result<()> {
    type Find = (LuaString, LuaString, i64, bool);
    let spender = meter.clone();
    let find = move |lua: &Lua, (subject, pattern, init, plain): Find| {
        find(lua, &spender, &subject.as_bytes(), &pattern.as_bytes(), init, plain)
    };
    host.set("find", lua.create_function(find)?)?;

    type Searched = (LuaString, LuaString, i64);
    let spender = meter.clone();
    let matches = move |lua: &Lua, (subject, pattern, init): Searched| {
        let (subject, pattern) = (subject.as_bytes(), pattern.as_bytes());
        let Some(from) = start(init, subject.len()) else { return no_match(lua) };
        let found =
            metered(&spender, |steps| pattern::search(&subject, &pattern, from, true, None, steps));
        answer(lua, found, |found| captures(lua, &subject, &found, true))
    };
    host.set("match", lua.create_function(matches)?)?;

    type Scan = (LuaString, LuaString, i64, i64, bool);
    let spender = meter.clone();
    let scan = move |lua: &Lua, (subject, pattern, init, last, anchored): Scan| {
        let (subject, pattern) = (subject.as_bytes(), pattern.as_bytes());
        let Some(from) = start(init, subject.len()) else { return no_match(lua) };
        let last = usize::try_from(last).ok();
        let found = metered(&spender, |steps| {
            pattern::search(&subject, &pattern, from, anchored, last, steps)
        });
        answer(lua, found, |found| located(lua, &subject, &found))
    };
    host.set("scan", lua.create_function(scan)?)?;

    let spender = meter.clone();
    let conversions = move |lua: &Lua, format: LuaString| {
        let format = format.as_bytes();
        if spender.spend(work_for(format.len())) {
            return exhausted(lua);
        }
        match conversions(&format) {
            Ok(letters) => lua.create_string(letters)?.into_lua_multi(lua),
            Err(problem) => (false, problem).into_lua_multi(lua),
        }
    };
    host.set("conversions", lua.create_function(conversions)?)?;

    let spender = meter.clone();
    let expand = move |lua: &Lua, (by, whole, caught): (LuaString, LuaString, Variadic<Value>)| {
        let by = by.as_bytes();
        if spender.spend(work_for(by.len())) {
            return exhausted(lua);
        }
        match expand(&by, &whole.as_bytes(), &caught) {
            Ok(text) => lua.create_string(text)?.into_lua_multi(lua),
            Err(problem) => (false, problem).into_lua_multi(lua),
        }
    };
    host.set("expand", lua.create_function(expand)?)
}

fn add_cryptography(lua: &Lua, meter: &Arc<Meter>, host: &Table) -> mlua::Result<()> {
    type Signed = (LuaString, LuaString, LuaString);
    let spender = meter.clone();
    let check = move |lua: &Lua, (key, signature, message): Signed| {
        let message = message.as_bytes();
        if spender.spend(SIGNATURE_WORK + work_for(message.len())) {
            return exhausted(lua);
        }
        match is_signed(&key.as_bytes(), &signature.as_bytes(), &message) {
            true => true.into_lua_multi(lua),
            false => (false, "the signature is not valid").into_lua_multi(lua),
        }
    };
    host.set("check_sig", lua.create_function(check)?)?;

    type Hash = fn(&[u8]) -> [u8; 32];
    let hashes: [(&str, Hash); 2] = [
        ("sha256", |text| Sha256::digest(text).into()),
        ("blake3", |text| *blake3::hash(text).as_bytes()),
    ];
    for (name, hash) in hashes {
        let spender = meter.clone();
        let function = move |lua: &Lua, text: LuaString| {
            let text = text.as_bytes();
            if spender.spend(20 + work_for(text.len())) {
                return exhausted(lua);
            }
            lua.create_string(hash(&text))?.into_lua_multi(lua)
        };
        host.set(name, lua.create_function(function)?)?;
    }
    Ok(())
}

/// Whether it is a BIP-340 signature of the message's SHA-256.
fn is_signed(key: &[u8], signature: &[u8], message: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (<[u8; 32]>::try_from(key), <[u8; 64]>::try_from(signature))
    else {
        return false;
    };
    let Ok(key) = XOnlyPublicKey::from_byte_array(key) else { return false };
    let signature = schnorr::Signature::from_byte_array(signature);
    SECP256K1.verify_schnorr(&signature, &Sha256::digest(message), &key).is_ok()
}

fn exhausted(lua: &Lua) -> mlua::Result<MultiValue> {
    false.into_lua_multi(lua)
}

fn no_match(lua: &Lua) -> mlua::Result<MultiValue> {
    Value::Nil.into_lua_multi(lua)
}

/// Where to begin, from 0, for an `init` of Lua; `None` if that is behind the end.
fn start(init: i64, length: usize) -> Option<usize> {
    let from = match usize::try_from(init) {
        Ok(init) => init.saturating_sub(1),
        Err(_) => {
            let back = usize::try_from(init.unsigned_abs()).unwrap_or(usize::MAX);
            length.saturating_sub(back)
        }
    };
    (from <= length).then_some(from)
}

/// Runs a search with the work that is left, and counts what it took.
fn metered<T>(
    meter: &Meter,
    search: impl FnOnce(&mut u64) -> Result<Option<T>, Fault>,
) -> Result<Option<T>, Fault> {
    let left = meter.left();
    let mut steps = left;
    let found = search(&mut steps);
    meter.spend(left - steps);
    if found.as_ref().is_err_and(|fault| *fault == Fault::Exhausted) {
        meter.exhaust();
    }
    found
}

fn answer<T>(
    lua: &Lua,
    found: Result<Option<T>, Fault>,
    show: impl FnOnce(T) -> mlua::Result<MultiValue>,
) -> mlua::Result<MultiValue> {
    match found {
        Ok(Some(found)) => show(found),
        Ok(None) => no_match(lua),
        Err(Fault::Exhausted) => exhausted(lua),
        Err(Fault::Malformed(problem)) => (false, problem).into_lua_multi(lua),
    }
}

fn find(
    lua: &Lua,
    meter: &Meter,
    subject: &[u8],
    pattern: &[u8],
    init: i64,
    plain: bool,
) -> mlua::Result<MultiValue> {
    let Some(from) = start(init, subject.len()) else { return no_match(lua) };
    if plain || pattern::is_plain(pattern) {
        let found = metered(meter, |steps| pattern::search_plain(subject, pattern, from, steps));
        return answer(lua, found, |at| (at + 1, at + pattern.len()).into_lua_multi(lua));
    }
    let found = metered(meter, |steps| pattern::search(subject, pattern, from, true, None, steps));
    answer(lua, found, |found| located(lua, subject, &found))
}

/// The first and last place of a match, from 1, and its captures.
fn located(lua: &Lua, subject: &[u8], found: &Match) -> mlua::Result<MultiValue> {
    let mut values = captures(lua, subject, found, false)?;
    values.push_front(found.end.into_lua(lua)?);
    values.push_front((found.start + 1).into_lua(lua)?);
    Ok(values)
}

/// The captures of a match; all of it if there are none and `or_whole`.
fn captures(lua: &Lua, subject: &[u8], found: &Match, or_whole: bool) -> mlua::Result<MultiValue> {
    let show = |capture: &Capture| match *capture {
        Capture::Text { start, end } => lua.create_string(&subject[start..end])?.into_lua(lua),
        Capture::Place(place) => (place + 1).into_lua(lua),
    };
    if found.captures.is_empty() && or_whole {
        let whole = Capture::Text { start: found.start, end: found.end };
        return Ok(MultiValue::from_vec(vec![show(&whole)?]));
    }
    Ok(MultiValue::from_vec(found.captures.iter().map(show).collect::<mlua::Result<_>>()?))
}

/// The letters of the conversions in a format, one for each argument that it takes. Lua checks
/// the rest of it.
fn conversions(format: &[u8]) -> Result<Vec<u8>, String> {
    let mut letters = Vec::new();
    let mut bytes = format.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            continue;
        }
        let letter = bytes.find(|byte| !b"-+ #0123456789.".contains(byte));
        match letter {
            Some(b'%') => {}
            // Not 'a' and 'q', whose digits are up to the C library, nor 'p', an address.
            Some(letter) if b"cdiouxXeEfFgGs".contains(letter) => letters.push(*letter),
            Some(letter) => {
                let letter = char::from(*letter).escape_default();
                return Err(format!("invalid conversion '%{letter}' to 'format'"));
            }
            None => return Err("invalid conversion '%' to 'format'".into()),
        }
    }
    Ok(letters)
}

/// The replacement for a match of `gsub`, with `%0` to `%9` replaced by what was caught.
fn expand(by: &[u8], whole: &[u8], caught: &[Value]) -> Result<Vec<u8>, String> {
    let mut text = Vec::with_capacity(by.len());
    let mut bytes = by.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            text.push(*byte);
            continue;
        }
        match bytes.next() {
            Some(b'%') => text.push(b'%'),
            Some(b'0') => text.extend_from_slice(whole),
            Some(b'1') if caught.is_empty() => text.extend_from_slice(whole),
            Some(digit @ b'1'..=b'9') => match caught.get(usize::from(digit - b'1')) {
                Some(Value::String(capture)) => text.extend_from_slice(&capture.as_bytes()),
                Some(Value::Integer(place)) => {
                    text.extend_from_slice(place.to_string().as_bytes());
                }
                _ => {
                    let index = char::from(*digit);
                    return Err(format!("invalid capture index %{index} in replacement string"));
                }
            },
            _ => return Err("invalid use of '%' in replacement string".into()),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_name_their_conversions() {
        assert_eq!(conversions(b"a %d %5.2f%% %-10s|%x").unwrap(), b"dfsx");
        for refused in ["%p", "%a", "%q", "%", "%5", "%\n"] {
            assert!(conversions(refused.as_bytes()).is_err(), "{refused}");
        }
    }

    #[test]
    fn places_are_those_of_lua() {
        assert_eq!([1, 2, 0, -1, -9].map(|init| start(init, 3)), [0, 1, 0, 2, 0].map(Some));
        assert_eq!((start(4, 3), start(5, 3), start(i64::MIN, 3)), (Some(3), None, Some(0)));
    }

    #[test]
    fn signatures_of_the_message_alone_are_good() {
        let pair = secp256k1::Keypair::from_seckey_byte_array(SECP256K1, [7; 32]).unwrap();
        let signature = pair.sign_schnorr_no_aux_rand(&Sha256::digest(b"message"));
        let (key, signature) = (pair.x_only_public_key().0.serialize(), signature.to_byte_array());
        assert!(is_signed(&key, &signature, b"message"));
        assert!(!is_signed(&key, &signature, b"messagf"));
        assert!(!is_signed(&key[..31], &signature, b"message"));
        assert!(!is_signed(&key, &signature[1..], b"message"));
        assert!(!is_signed(&[0xff; 32], &signature, b"message"));
    }
}
