//! A data set, a scenario and a backbone of one's own, as a third party would add them: each is
//! registered, and that is all.

mod pixel_grid;
mod stripes;
