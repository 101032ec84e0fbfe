//! Enumerations and their codes in the ABI.

use super::abi;
use super::flat::Read;
use super::messages::FailureClass;
use crate::array::Element;
use crate::data::View;
use crate::method::Access;
use crate::state::Kind;

/// The class of a status' code; none if nothing failed.
pub(super) fn failure_class(code: u32) -> Option<FailureClass> {
    match code {
        abi::OK => None,
        abi::USAGE => Some(FailureClass::Usage),
        abi::UNSUPPORTED => Some(FailureClass::Unsupported),
        abi::DIVERGED => Some(FailureClass::Diverged),
        abi::INTERRUPTED => Some(FailureClass::Interrupted),
        _ => Some(FailureClass::Failed),
    }
}

/// The code of a failure.
pub(super) fn failure_code(class: FailureClass) -> u32 {
    match class {
        FailureClass::Failed => abi::FAILED,
        FailureClass::Usage => abi::USAGE,
        FailureClass::Unsupported => abi::UNSUPPORTED,
        FailureClass::Diverged => abi::DIVERGED,
        FailureClass::Interrupted => abi::INTERRUPTED,
    }
}

/// The code of a view.
pub(super) fn view_code(view: View) -> u32 {
    match view {
        View::Train => abi::VIEW_TRAIN,
        View::Test => abi::VIEW_TEST,
    }
}

/// The view of a code.
pub(super) fn view(code: u32) -> Read<View> {
    match code {
        abi::VIEW_TRAIN => Ok(View::Train),
        abi::VIEW_TEST => Ok(View::Test),
        _ => Err(format!("there is no view {code}")),
    }
}

/// The code of an access.
pub(super) fn access_code(access: Access) -> u32 {
    match access {
        Access::Stream => abi::ACCESS_STREAM,
        Access::Memory => abi::ACCESS_MEMORY,
        Access::All => abi::ACCESS_ALL,
    }
}

/// The access of a code.
pub(super) fn access(code: u32) -> Read<Access> {
    match code {
        abi::ACCESS_STREAM => Ok(Access::Stream),
        abi::ACCESS_MEMORY => Ok(Access::Memory),
        abi::ACCESS_ALL => Ok(Access::All),
        _ => Err(format!("there is no access {code}")),
    }
}

const ELEMENTS: [(u32, Element); 7] = [
    (abi::F32, Element::F32),
    (abi::F64, Element::F64),
    (abi::BF16, Element::BF16),
    (abi::F16, Element::F16),
    (abi::I64, Element::I64),
    (abi::U8, Element::U8),
    (abi::U32, Element::U32),
];

/// The code of an element type.
pub(super) fn element_code(element: Element) -> u32 {
    ELEMENTS.iter().find(|(_, e)| *e == element).map_or(abi::NONE, |(code, _)| *code)
}

/// The element type of a code.
pub(super) fn element(code: u32) -> Option<Element> {
    ELEMENTS.iter().find(|(c, _)| *c == code).map(|(_, e)| *e)
}

const KINDS: [(u32, Kind); 4] = [
    (abi::KIND_TRAINED, Kind::Trained),
    (abi::KIND_STATISTIC, Kind::Statistic),
    (abi::KIND_OPTIMISER, Kind::Optimiser),
    (abi::KIND_BUFFER, Kind::Buffer),
];

/// The code of a kind.
pub(super) fn kind_code(kind: Kind) -> u32 {
    KINDS.iter().find(|(_, k)| *k == kind).map_or(0, |(code, _)| *code)
}

/// The kind of a code.
pub(super) fn kind(code: u32) -> Option<Kind> {
    KINDS.iter().find(|(c, _)| *c == code).map(|(_, k)| *k)
}
