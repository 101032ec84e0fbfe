//! What is known of a struct that crosses without a value of it.

/// Where the parts of a struct lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The struct's name.
    pub name: &'static str,
    /// Its size in bytes.
    pub size: usize,
    /// Name, offset and size of each field.
    pub fields: &'static [(&'static str, usize, usize)],
}

/// A struct that crosses.
///
/// # Safety
/// It is `repr(C)`. It begins with its size in 64 bits; [`CilPlugin`](super::CilPlugin) begins with
/// the version and the size, in 32 bits each. It is a valid value when all its bytes are zero. Its
/// fields lie where `FIELDS` says, and one that is called `required` is a text.
pub unsafe trait Crossing: Copy {
    /// Its name.
    const NAME: &'static str;
    /// Its size in revision 0, with which its later fields begin.
    const LEAST: usize;
    /// Name, offset and size of each field.
    const FIELDS: &'static [(&'static str, usize, usize)];

    /// One with its size set and all else zero.
    fn empty() -> Self;
}

/// The size of a field.
pub(super) const fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Declares structs, and `layouts` of them. The field behind `until` is the last of revision 0.
macro_rules! structs {
    ($(
        $(#[$doc:meta])*
        pub struct $name:ident until $last:ident {
            $($(#[$field_doc:meta])* pub $field:ident: $type:ty,)*
        }
    )*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

            // SAFETY: it is `repr(C)`, and its fields are numbers, raw pointers, functions that may
            // be missing, and structs of such fields, so that zeros are a value of each.
            unsafe impl Crossing for $name {
                const NAME: &'static str = stringify!($name);
                const LEAST: usize =
                    std::mem::offset_of!($name, $last) + size_of_field(|s: &$name| &s.$last);
                const FIELDS: &'static [(&'static str, usize, usize)] = &[
                    $((
                        stringify!($field),
                        std::mem::offset_of!($name, $field),
                        size_of::<$type>(),
                    )),*
                ];

                fn empty() -> Self {
                    // SAFETY: zeros are a value of it, as above.
                    let zeros: Self = unsafe { std::mem::zeroed() };
                    Self { size: size_of::<Self>() as _, ..zeros }
                }
            }
        )*

        /// Where the parts of these structs lie.
        pub(super) fn layouts() -> Vec<Layout> {
            vec![$(Layout {
                name: $name::NAME,
                size: size_of::<$name>(),
                fields: $name::FIELDS,
            }),*]
        }
    };
}

pub(super) use structs;
