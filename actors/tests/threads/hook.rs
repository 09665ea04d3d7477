//! The hook of this process, of which there is one: where tests make the library stand still or panic.

use dwell_actors::fault_point::{self, FaultPoint};

use crate::{ends, failures};

pub(crate) fn set() {
    fault_point::set(reach);
}

fn reach(point: FaultPoint) {
    ends::stand_still(point);
    failures::panic_once(point);
}
