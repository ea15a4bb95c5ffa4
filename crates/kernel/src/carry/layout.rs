//! How values are laid out in a map, as the kernel keeps it beside the map (BTF), and what becomes of a value in
//! another layout.
//!
//! Members are found by their names: one that both layouts have is copied, whatever its place; one that only the new
//! one has is zero. So whoever changes `bpf/abi.h` may add, move, widen and drop members, and gives a member that
//! says something else another name.

/// Types within types: more than any struct of weir's has.
const DEPTH_MAX: usize = 16;

const MAGIC: u16 = 0xeb9f;

/// Kinds of types (linux/btf.h).
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// The layout of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    bytes: usize,
    shape: Shape,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Number,
    /// So many of the same.
    Array(usize, Box<Layout>),
    Struct(Vec<Member>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    name: String,
    offset: usize,
    layout: Layout,
}

impl Layout {
    /// The layout of a type in the kernel's description. `None`: it is none of integers, arrays and structs of them,
    /// or the description does not hold together.
    pub(super) fn parse(btf: &[u8], type_id: u32) -> Option<Self> {
        let types = Types::new(btf)?;
        types.layout(type_id, DEPTH_MAX)
    }

    /// Bytes of a value.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a value of this layout is in another one. `None`: a number does not fit there, or a member is something
    /// else there.
    pub(super) fn convert(&self, to: &Self, value: &[u8]) -> Option<Vec<u8>> {
        let mut converted = vec![0; to.bytes];
        self.write(to, value, &mut converted)?;
        Some(converted)
    }

    fn write(&self, to: &Self, value: &[u8], into: &mut [u8]) -> Option<()> {
        let (value, into) = (value.get(..self.bytes)?, into.get_mut(..to.bytes)?);
        match (&self.shape, &to.shape) {
            (Shape::Number, Shape::Number) => write_number(value, into),
            (Shape::Array(_, from), Shape::Array(_, to)) => {
                let (step, into_step) = (from.bytes.max(1), to.bytes.max(1));
                let mut places = into.chunks_exact_mut(into_step);
                value.chunks_exact(step).try_for_each(|element| match places.next() {
                    Some(place) => from.write(to, element, place),
                    // There are fewer: nothing may be lost.
                    None => element.iter().all(|byte| *byte == 0).then_some(()),
                })
            }
            (Shape::Struct(from), Shape::Struct(to)) => to.iter().try_for_each(|member| {
                let Some(same) = from.iter().find(|one| one.name == member.name) else { return Some(()) };
                let (value, into) = (value.get(same.offset..)?, into.get_mut(member.offset..)?);
                same.layout.write(&member.layout, value, into)
            }),
            _ => None,
        }
    }
}

fn write_number(value: &[u8], into: &mut [u8]) -> Option<()> {
    let number = match value {
        [byte] => u64::from(*byte),
        &[a, b] => u64::from(u16::from_ne_bytes([a, b])),
        &[a, b, c, d] => u64::from(u32::from_ne_bytes([a, b, c, d])),
        _ => u64::from_ne_bytes(value.try_into().ok()?),
    };
    match into.len() {
        1 => into.copy_from_slice(&u8::try_from(number).ok()?.to_ne_bytes()),
        2 => into.copy_from_slice(&u16::try_from(number).ok()?.to_ne_bytes()),
        4 => into.copy_from_slice(&u32::try_from(number).ok()?.to_ne_bytes()),
        8 => into.copy_from_slice(&number.to_ne_bytes()),
        _ => return None,
    }
    Some(())
}

/// The types of a description, by their numbers.
struct Types<'a> {
    /// Each with its three words, and what follows them.
    types: Vec<([u32; 3], &'a [u8])>,
    names: &'a [u8],
}

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(index * 4..index * 4 + 4)?.try_into().ok()?))
}

impl<'a> Types<'a> {
    fn new(btf: &'a [u8]) -> Option<Self> {
        if btf.get(..2)? != MAGIC.to_ne_bytes() {
            return None;
        }
        let header = |index| word(btf, index).and_then(|word| usize::try_from(word).ok());
        let body = btf.get(header(1)?..)?;
        let part = |start: usize, length: usize| body.get(start..start.checked_add(length)?);
        let mut rest = part(header(2)?, header(3)?)?;
        let names = part(header(4)?, header(5)?)?;
        // Number 0 is void.
        let mut types = vec![([0; 3], &body[..0])];
        while !rest.is_empty() {
            let words = [word(rest, 0)?, word(rest, 1)?, word(rest, 2)?];
            let (kind, count) = (kind(words), (words[1] & 0xffff) as usize);
            let more = match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => count * 12,
                KIND_ENUM | KIND_FUNC_PROTO => count * 8,
                _ => 0,
            };
            types.push((words, rest.get(12..12 + more)?));
            rest = &rest[12 + more..];
        }
        Some(Self { types, names })
    }

    fn layout(&self, type_id: u32, depth: usize) -> Option<Layout> {
        let depth = depth.checked_sub(1)?;
        let (words, more) = self.types.get(type_id as usize)?;
        let bytes = words[2] as usize;
        Some(match kind(*words) {
            KIND_INT | KIND_ENUM | KIND_ENUM64 => Layout { bytes, shape: Shape::Number },
            KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_TYPE_TAG => self.layout(words[2], depth)?,
            KIND_ARRAY => {
                let element = self.layout(word(more, 0)?, depth)?;
                let count = word(more, 2)? as usize;
                let bytes = element.bytes.checked_mul(count)?;
                Layout { bytes, shape: Shape::Array(count, Box::new(element)) }
            }
            KIND_STRUCT => {
                let members = more.chunks_exact(12).map(|member| {
                    let offset = word(member, 2)? as usize / 8;
                    Some(Member {
                        name: self.name(word(member, 0)?)?,
                        offset,
                        layout: self.layout(word(member, 1)?, depth)?,
                    })
                });
                let members = members.collect::<Option<Vec<_>>>()?;
                let end = |member: &Member| member.offset.checked_add(member.layout.bytes);
                let inside = members.iter().all(|member| end(member).is_some_and(|end| end <= bytes));
                inside.then_some(Layout { bytes, shape: Shape::Struct(members) })?
            }
            _ => return None,
        })
    }

    fn name(&self, at: u32) -> Option<String> {
        let name = self.names.get(at as usize..)?.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }
}

fn kind(words: [u32; 3]) -> u32 {
    words[1] >> 24 & 0x1f
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: usize) -> Layout {
        Layout { bytes, shape: Shape::Number }
    }

    fn array(count: usize, of: Layout) -> Layout {
        Layout { bytes: count * of.bytes, shape: Shape::Array(count, Box::new(of)) }
    }

    fn structure(members: Vec<(&str, Layout)>) -> Layout {
        let mut bytes = 0;
        let members = members.into_iter().map(|(name, layout)| {
            let offset = bytes;
            bytes += layout.bytes;
            Member { name: name.to_owned(), offset, layout }
        });
        let members = members.collect();
        Layout { bytes, shape: Shape::Struct(members) }
    }

    #[test]
    fn members_go_where_their_names_are() {
        let from = structure(vec![
            ("gone", number(4)),
            ("wider", number(2)),
            ("name", array(2, number(1))),
            ("inner", structure(vec![("a", number(1)), ("b", number(1))])),
        ]);
        let to = structure(vec![
            ("inner", structure(vec![("b", number(1)), ("new", number(1)), ("a", number(1))])),
            ("wider", number(4)),
            ("name", array(3, number(1))),
        ]);
        let mut value = vec![9, 9, 9, 9];
        value.extend(0x1234u16.to_ne_bytes());
        value.extend([1, 2, 3, 4]);
        let mut expected = vec![4, 0, 3];
        expected.extend(0x1234u32.to_ne_bytes());
        expected.extend([1, 2, 0]);
        assert_eq!(from.convert(&to, &value), Some(expected));
        assert_eq!(from.convert(&to, &value[1..]), None, "too short");
    }

    #[test]
    fn what_does_not_fit_is_not_cut() {
        let (wide, narrow) = (number(4), number(1));
        assert_eq!(wide.convert(&narrow, &200u32.to_ne_bytes()), Some(vec![200]));
        assert_eq!(wide.convert(&narrow, &256u32.to_ne_bytes()), None);
        let (long, short) = (array(3, number(1)), array(2, number(1)));
        assert_eq!(long.convert(&short, &[1, 2, 0]), Some(vec![1, 2]));
        assert_eq!(long.convert(&short, &[1, 2, 3]), None);
        assert_eq!(long.convert(&narrow, &[1, 2, 0]), None, "something else");
    }

    /// Descriptions come from the kernel; what does not hold together is refused all the same.
    #[test]
    fn a_description_cut_anywhere_is_no_reason_to_panic() {
        let mut btf = Vec::new();
        btf.extend(MAGIC.to_ne_bytes());
        btf.extend([1, 0]);
        let types: [u32; 14] = [
            // 1: an integer of 4 bytes.
            1,
            KIND_INT << 24,
            4,
            32,
            // 2: a struct with one member.
            5,
            KIND_STRUCT << 24 | 1,
            4,
            10,
            1,
            0,
            // 3: a name for it.
            5,
            KIND_TYPEDEF << 24,
            2,
            0,
        ];
        let types = &types[..13];
        let names = b"\0u32\0flow\0state\0";
        let bytes = |count: usize| u32::try_from(count).unwrap();
        for header in [24, 0, bytes(types.len() * 4), bytes(types.len() * 4), bytes(names.len())] {
            btf.extend(header.to_ne_bytes());
        }
        btf.extend(types.iter().flat_map(|word| word.to_ne_bytes()));
        btf.extend(names);
        let expected = structure(vec![("state", number(4))]);
        assert_eq!(Layout::parse(&btf, 3), Some(expected));
        assert_eq!(Layout::parse(&btf, 4), None);
        for length in 0..btf.len() - names.len() {
            assert_eq!(Layout::parse(&btf[..length], 3), None);
        }
        for index in 0..btf.len() {
            let mut garbled = btf.clone();
            garbled[index] ^= 0xff;
            let _ = Layout::parse(&garbled, 3);
        }
    }
}
