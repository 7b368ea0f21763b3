//! CPU time, which other programs on the machine disturb less than they disturb the wall clock.

use std::time::Duration;

/// What this process has used so far, all threads together.
pub fn process() -> Duration {
    cpu_time::ProcessTime::now().as_duration()
}
