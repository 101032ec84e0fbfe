"""Methods that are handed numpy's arrays. Skipped where numpy is not installed; everything else is in test_wire.py."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from cilbench import _arrays, method, state

try:
    import numpy as np
except ImportError:
    np = None


@unittest.skipIf(np is None, "numpy is not installed")
class Numpy(unittest.TestCase):
    def test_arrays_of_every_type_go_and_come_back_bit_for_bit(self):
        rng = np.random.default_rng(0)
        for element, (_, code, _) in _arrays.ELEMENTS.items():
            for shape in [(), (0, 3), (5,), (2, 3, 7)]:
                numbers = np.asarray(rng.random(shape) * 200).astype(code)
                sent = _arrays.as_array(numbers, "x")
                self.assertEqual((sent.element, sent.shape), (element, shape))
                back = _arrays.for_method(sent.copy(), plain=False)
                self.assertEqual((back.dtype, back.shape), (np.dtype(code), shape))
                self.assertEqual(back.tobytes(), numbers.tobytes())

    def test_arrays_share_memory_and_can_be_written_to(self):
        plain = _arrays.Array("f32", [2, 3], bytearray(24))
        for shared in (_arrays.for_method(plain, plain=False), np.asarray(plain)):
            shared += 1
        self.assertEqual(plain.tolist(), [[2.0] * 3] * 2)
        self.assertIs(_arrays.for_method(plain, plain=True), plain)

    def test_strided_and_big_endian_arrays_are_sent_in_order(self):
        for array in (np.arange(12, dtype=np.float32).reshape(3, 4).T, np.arange(12, dtype=">f4").reshape(4, 3)):
            self.assertEqual(_arrays.as_array(array, "x").tolist(), array.tolist())

    def test_other_types_are_converted_or_refused_by_name(self):
        self.assertEqual(_arrays.as_array(np.array([True]), "x").element, "u8")
        self.assertEqual(_arrays.as_array(np.int32([1]), "x").element, "i64")
        self.assertEqual(_arrays.as_array([np.float32(1), 2], "x").element, "f64")
        with self.assertRaisesRegex(TypeError, "state 'm'.*complex128"):
            _arrays.as_array(np.array([1j]), "state 'm'")

    def test_a_batch_and_a_state_are_numpy_s(self):
        images = _arrays.Array("f32", [2, 1, 1, 1], bytearray(8))
        batch = method.Batch.of({"images": images, "labels": [1, 0], "positions": [5, 6]}, plain=False, epoch=3)
        self.assertEqual((batch.images.dtype, batch.labels.dtype, batch.epoch), (np.float32, np.int64, 3))
        self.assertEqual((batch.labels.tolist(), batch.positions.tolist()), ([1, 0], [5, 6]))
        restored = state.unpack({"m": {"kind": "trained", "value": images}}, plain=False)["m"]
        restored += 1
        self.assertEqual(sum(images.flat), 0)


if __name__ == "__main__":
    unittest.main()
