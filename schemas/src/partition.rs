//! Key -> partition: Java's murmur2, so that JVM engines co-partition with us.
//!
//! **Invariant:** equals `Utils.toPositive(Utils.murmur2(key)) % partitions` of Apache Kafka's `DefaultPartitioner`.

use crate::topic::PartitionId;

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// The partition of a key among `count` partitions; `count` is at least 1.
pub fn for_key(key: &[u8], count: u32) -> PartitionId {
    PartitionId((murmur2(key) & 0x7fff_ffff) % count.max(1))
}

/// Java's 32-bit murmur2 with Kafka's seed (Apache Kafka, `org.apache.kafka.common.utils.Utils#murmur2`).
pub fn murmur2(data: &[u8]) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "keys are far below 4 GiB; Java uses a 32-bit length too"
    )]
    let mut h = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in words.by_ref() {
        let mut k = word.iter().rev().fold(0_u32, |k, byte| (k << 8) | u32::from(*byte)).wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        h ^= tail.iter().rev().fold(0_u32, |k, byte| (k << 8) | u32::from(*byte));
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::cast_sign_loss, reason = "the Java values are signed")]
    fn equals_the_values_of_kafkas_own_test() {
        // Apache Kafka, UtilsTest#testMurmur2.
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash as u32, "{key}");
        }
    }
}
