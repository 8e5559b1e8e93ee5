//! The outermost sections of a component, as bytes: found, left out and appended without understanding what is in them.
//!
//! A component is 8 bytes of preamble and then sections: an id, a length (LEB128) and as many bytes. A custom section has
//! id 0 and begins with its name. Whether the sections make sense is for the wasm floor to say.

use std::ops::Range;

/// Bytes before the first section.
const PREAMBLE: usize = 8;
/// Id of a custom section.
const CUSTOM: u8 = 0;

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
    let mut content = Vec::with_capacity(name.len() + data.len() + 5);
    push_length(&mut content, name.len());
    content.extend_from_slice(name.as_bytes());
    content.extend_from_slice(data);
    let mut result = Vec::with_capacity(component.len() + content.len() + 6);
    result.extend_from_slice(component);
    result.push(CUSTOM);
    push_length(&mut result, content.len());
    result.extend_from_slice(&content);
    result
}

/// The component without its outermost custom sections of a name; none where its sections cannot be told apart.
pub fn without_custom_sections(component: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut result = Vec::with_capacity(component.len());
    let mut kept = 0;
    for section in custom_sections(component)?.iter().filter(|section| section.name == name.as_bytes()) {
        result.extend_from_slice(&component[kept..section.place.start]);
        kept = section.place.end;
    }
    result.extend_from_slice(&component[kept..]);
    Some(result)
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
        assert_eq!(without_custom_sections(&three, "first").unwrap(), with_custom_section(EMPTY, "second", &long));
        assert_eq!(without_custom_sections(&three, "other").unwrap(), three);
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
