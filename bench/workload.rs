//! The load that every benchmark names: increments of one counter with three tags, a time and a 16-byte id, their series
//! drawn by a zipf law.
//!
//! Everything follows from a series' number and a seed, and every text has a fixed width, so that a request can be
//! rendered once and patched in place. Drawing a series costs two table look-ups, whatever the exponent.

/// The counter of every increment.
pub const COUNTER: &str = "page_views";
/// Digits of a series' number in its path.
pub const DIGITS: usize = 7;

/// SplitMix64: a bijection of a counter, so that its outputs are all different until 2^64 of them are drawn.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Draws series numbers by a zipf law: Walker's alias method over a fixed shuffle of the ranks.
pub struct Zipf {
    /// For each place the chance, of 2^32, that it stands for itself, and what it stands for otherwise.
    places: Vec<(u32, u32)>,
}

impl Zipf {
    /// A law with this exponent over so many series.
    pub fn new(series: usize, exponent: f64) -> Self {
        assert!(series >= 1 && series < 10usize.pow(DIGITS as u32), "1 to {} series", 10usize.pow(DIGITS as u32) - 1);
        let mut weights: Vec<f64> = (1..=series).map(|rank| (rank as f64).powf(-exponent)).collect();
        let mut shuffle = Random::new(0x7a11);
        for at in (1..series).rev() {
            weights.swap(at, (shuffle.draw() % (at as u64 + 1)) as usize);
        }
        let mean = weights.iter().sum::<f64>() / series as f64;
        weights.iter_mut().for_each(|weight| *weight /= mean);
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..series).partition(|at| weights[*at] < 1.0);
        let mut places: Vec<(u32, u32)> = (0..series as u32).map(|own| (u32::MAX, own)).collect();
        while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
            places[poor] = ((weights[poor] * f64::from(u32::MAX)) as u32, rich as u32);
            weights[rich] -= 1.0 - weights[poor];
            if weights[rich] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        Self { places }
    }

    /// The next series number.
    pub fn draw(&self, random: &mut Random) -> u32 {
        let drawn = random.draw();
        let place = ((u128::from(drawn) * self.places.len() as u128) >> 64) as usize;
        let (chance, other) = self.places[place];
        if (drawn as u32) <= chance { place as u32 } else { other }
    }
}

/// The texts of a series.
pub struct Series(pub u32);

impl Series {
    /// Its country: two letters.
    pub fn country(&self) -> [u8; 2] {
        let at = (self.0 % 180) as u8;
        [b'a' + at / 14, b'a' + at % 14]
    }

    /// Its method: three letters.
    pub fn method(&self) -> &'static [u8; 3] {
        if self.0.is_multiple_of(5) { b"PUT" } else { b"GET" }
    }

    /// The digits of its path `/p/0012345`: they alone tell it from every other.
    pub fn digits(&self) -> [u8; DIGITS] {
        let (mut digits, mut rest) = ([b'0'; DIGITS], self.0);
        for digit in digits.iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        digits
    }
}
