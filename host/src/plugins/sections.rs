//! The sections of a component, as bytes: found, changed and appended without understanding what is in them.
//!
//! A component is 8 bytes of preamble and then sections: an id, a length (LEB128) and as many bytes. A custom section has
//! id 0 and begins with its name. Core modules and further components are sections, too, of the same form within. Whether the
//! sections make sense is for the wasm floor to say.

use std::ops::Range;

/// Bytes before the first section.
const PREAMBLE: usize = 8;
/// Id of a custom section.
const CUSTOM: u8 = 0;
/// Ids of the sections of a component that have sections themselves.
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// The seventh and eighth byte of a component; those of a core module are 0.
const LAYER: &[u8] = &[1, 0];
/// How deep components lie in components, at most.
const DEPTH: usize = 32;

/// What becomes of the data of a custom section; none where it is left out.
pub type Change<'a> = dyn FnMut(&[u8]) -> Option<Vec<u8>> + 'a;

/// A custom section among the outermost ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomSection<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// What is in it.
    pub data: &'a [u8],
    /// Where it is in the component, with its id and length.
    pub place: Range<usize>,
}

/// The custom sections among a component's outermost ones, in order; none where the sections do not fill it exactly.
pub fn custom_sections(component: &[u8]) -> Option<Vec<CustomSection<'_>>> {
    let mut found = Vec::new();
    let mut at = PREAMBLE;
    component.get(..PREAMBLE)?;
    while at < component.len() {
        let id = component[at];
        let (size, begin) = length_at(component, at + 1)?;
        let end = begin.checked_add(size)?;
        let content = component.get(begin..end)?;
        if id == CUSTOM {
            let (name_size, name_begin) = length_at(content, 0)?;
            let name_end = name_begin.checked_add(name_size)?;
            let name = content.get(name_begin..name_end)?;
            found.push(CustomSection { name, data: &content[name_end..], place: at..end });
        }
        at = end;
    }
    Some(found)
}

/// The component with a custom section at its end.
pub fn with_custom_section(component: &[u8], name: &str, data: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(component.len() + name.len() + data.len() + 11);
    result.extend_from_slice(component);
    push_custom_section(&mut result, name, data);
    result
}

/// The component with each custom section of a name changed, wherever in it that lies: of Rust's components the linker leaves
/// them in the core module. None where its sections cannot be told apart.
pub fn with_changed_sections(component: &[u8], name: &str, change: &mut Change<'_>) -> Option<Vec<u8>> {
    let changed = changed(component, name, change, DEPTH)?;
    Some(changed.unwrap_or_else(|| component.to_vec()))
}

/// A component or core module with its sections changed; `Some(None)` where there is nothing to change.
fn changed(whole: &[u8], name: &str, change: &mut Change<'_>, depth: usize) -> Option<Option<Vec<u8>>> {
    let depth = depth.checked_sub(1)?;
    let is_component = whole.get(..PREAMBLE)?.ends_with(LAYER);
    let mut result = Vec::new();
    let (mut at, mut kept) = (PREAMBLE, 0);
    while at < whole.len() {
        let (begin, id) = (at, whole[at]);
        let (size, body) = length_at(whole, at + 1)?;
        at = body.checked_add(size)?;
        let content = whole.get(body..at)?;
        if id == CUSTOM {
            let (name_size, name_begin) = length_at(content, 0)?;
            let name_end = name_begin.checked_add(name_size)?;
            if content.get(name_begin..name_end)? == name.as_bytes() {
                result.extend_from_slice(&whole[kept..begin]);
                if let Some(data) = change(&content[name_end..]) {
                    push_custom_section(&mut result, name, &data);
                }
                kept = at;
            }
        } else if is_component
            && matches!(id, CORE_MODULE | COMPONENT)
            && let Some(content) = changed(content, name, change, depth)?
        {
            result.extend_from_slice(&whole[kept..begin]);
            push_section(&mut result, id, &content);
            kept = at;
        }
    }
    if kept == 0 {
        return Some(None);
    }
    result.extend_from_slice(&whole[kept..]);
    Some(Some(result))
}

fn push_custom_section(bytes: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut content = Vec::with_capacity(name.len() + data.len() + 5);
    push_length(&mut content, name.len());
    content.extend_from_slice(name.as_bytes());
    content.extend_from_slice(data);
    push_section(bytes, CUSTOM, &content);
}

fn push_section(bytes: &mut Vec<u8>, id: u8, content: &[u8]) {
    bytes.push(id);
    push_length(bytes, content.len());
    bytes.extend_from_slice(content);
}

/// An unsigned LEB128 of at most 32 bits, and where it ends.
fn length_at(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for index in 0..5 {
        let byte = *bytes.get(at + index)?;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(value).ok()? as usize, at + index + 1));
        }
    }
    None
}

fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component without anything in it.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    /// A core module without anything in it.
    const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";

    /// Puts sections into others.
    type Around<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_section(&mut bytes, id, content);
        bytes
    }

    #[test]
    fn a_section_is_changed_wherever_it_lies() {
        let custom = |data: &[u8]| with_custom_section(b"", "wanted", data);
        let (old, new) = (custom(b"old"), custom(&[b'n'; 200]));
        let other = with_custom_section(b"", "other", b"x");
        // A core module's first section has the id that core modules have in components.
        let types = section(1, b"\0");
        // As linkers write a length that they fill in later.
        let padded = [&[CORE_MODULE, 0x88, 0x80, 0x80, 0x80, 0][..], EMPTY_MODULE].concat();
        let around: [Around<'_>; 3] = [
            &|inner| inner.to_vec(),
            &|inner| section(CORE_MODULE, &[EMPTY_MODULE, &types, inner, &other].concat()),
            &|inner| {
                let module = section(CORE_MODULE, &[EMPTY_MODULE, inner].concat());
                section(COMPONENT, &[EMPTY, &other, &module, &padded].concat())
            },
        ];
        for around in around {
            let whole = |inner: &[u8]| [EMPTY, &padded, &other, &around(inner), &other].concat();
            let mut found = Vec::new();
            let changed = with_changed_sections(&whole(&old), "wanted", &mut |data| {
                found.push(data.to_vec());
                Some(vec![b'n'; 200])
            });
            assert_eq!((changed.unwrap(), found), (whole(&new), vec![b"old".to_vec()]));
            assert_eq!(with_changed_sections(&whole(&old), "wanted", &mut |_| None).unwrap(), whole(b""));
            assert_eq!(with_changed_sections(&whole(&old), "missing", &mut |_| None).unwrap(), whole(&old));
        }
        let deep = (0..DEPTH).fold(EMPTY.to_vec(), |inner, _| [EMPTY, &section(COMPONENT, &inner)].concat());
        assert_eq!(with_changed_sections(&deep, "wanted", &mut |_| None), None, "there is a bound");
        let damaged = [EMPTY, &section(CORE_MODULE, &[EMPTY_MODULE, &old[..5]].concat())].concat();
        assert_eq!(with_changed_sections(&damaged, "wanted", &mut |_| None), None);
    }

    #[test]
    fn a_section_that_is_appended_is_found_and_can_be_left_out() {
        let long = vec![7; 300];
        let one = with_custom_section(EMPTY, "first", b"1");
        let two = with_custom_section(&one, "second", &long);
        let three = with_custom_section(&two, "first", b"");
        let found = custom_sections(&three).unwrap();
        let names: Vec<_> = found.iter().map(|section| (section.name, section.data.len())).collect();
        assert_eq!(names, [(&b"first"[..], 1), (b"second", 300), (b"first", 0)]);
        assert_eq!(found[2].place, two.len()..three.len());
        let without = |name| with_changed_sections(&three, name, &mut |_| None).unwrap();
        assert_eq!(without("first"), with_custom_section(EMPTY, "second", &long));
        assert_eq!(without("other"), three);
    }

    #[test]
    fn sections_that_do_not_fill_the_component_are_not_told_apart() {
        let whole = with_custom_section(EMPTY, "name", b"data");
        assert!(custom_sections(&whole).is_some());
        for cut in (0..whole.len()).filter(|&cut| cut != EMPTY.len()) {
            assert_eq!(custom_sections(&whole[..cut]), None, "{cut} bytes");
        }
        for trailing in [&b"\0"[..], b"\0\x01", b"\x01\xff\xff\xff\xff\x7f", b"\x01\x80\x80\x80\x80\x80\x01"] {
            assert_eq!(custom_sections(&[&whole, trailing].concat()), None, "{trailing:?}");
        }
    }
}
