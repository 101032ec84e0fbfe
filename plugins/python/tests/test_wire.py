"""Frames, arrays, hyper-parameters and states, without a harness and without numpy (see test_numpy.py).

    python3 -m unittest discover -s plugins/python/tests
"""

import array
import dataclasses
import os
import subprocess
import sys
import threading
import unittest
import unittest.mock
from typing import Literal

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

import cilbench
from cilbench import _arrays, _serve, _wire, parameters, state


def pipe():
    """A channel that receives what it sends."""
    inp, out = os.pipe()
    return _wire.Channel(inp, out)


def there_and_back(message):
    channel = pipe()
    # A pipe holds 64 KiB: a larger frame needs a reader at the other end.
    sender = threading.Thread(target=channel.send, args=[message])
    sender.start()
    received = channel.receive()
    sender.join()
    return received


def plain(element, shape, numbers):
    """An array of these numbers."""
    return _arrays._of_flat(numbers, shape, element)


class Frames(unittest.TestCase):
    def test_arrays_of_every_type_come_back_bit_for_bit(self):
        for element in _arrays.ELEMENTS:
            for shape in [(), (0, 3), (5,), (2, 3, 7)]:
                count = 1
                for size in shape:
                    count *= size
                sent = plain(element, shape, [7 * i % 200 for i in range(count)])
                back = there_and_back({"a": sent, "list": [sent, 1, None, "x"]})
                for received in (back["a"], back["list"][0]):
                    self.assertEqual((received.element, received.shape), (element, shape))
                    self.assertEqual(bytes(received.flat), bytes(sent.flat))
                    self.assertEqual(received.tolist(), sent.tolist())
                self.assertEqual(back["list"][1:], [1, None, "x"])

    def test_a_large_array(self):
        sent = plain("f32", (600, 1000), range(600_000))
        self.assertEqual(there_and_back([sent])[0].flat, sent.flat)

    def test_received_arrays_can_be_written_to(self):
        for count in (3, 1_000_000):
            received = there_and_back(plain("f64", [count], [0.0] * count))
            received.flat[1] = 2.5
            self.assertEqual(received[1], 2.5)

    def test_not_a_number_is_no_json(self):
        with self.assertRaises(ValueError):
            pipe().send({"loss": float("nan")})

    def test_rubbish_and_a_cut_frame_are_refused(self):
        inp, out = os.pipe()
        os.write(out, b"Hello, world! This is not a frame")
        with self.assertRaisesRegex(ConnectionError, "Hell"):
            _wire.Channel(inp, -1).receive()
        inp, out = os.pipe()
        os.write(out, _wire.HEAD.pack(_wire.MAGIC, _wire.BEHIND, 100, 0) + b"{}")
        os.close(out)
        with self.assertRaisesRegex(ConnectionError, "middle"):
            _wire.Channel(inp, -1).receive()


class Versions(unittest.TestCase):
    def test_a_key_that_may_be_skipped_is_and_any_other_is_refused_by_name(self):
        task = {"index": 0, "tasks": 1, "classes": [0], "first_class": 0, "class_names": ["a"], "train_images": 3, "domain": None}
        received = there_and_back({**task, "?names": {"?deep": 1}})
        self.assertEqual(cilbench.TaskInfo.of(received), cilbench.TaskInfo(**task))
        with self.assertRaisesRegex(_wire.UnknownKey, r"a task has the key 'names', .*\(protocol 2\.0\)"):
            cilbench.TaskInfo.of({**task, "names": 1})

    def test_a_call_with_an_unknown_key_fails_and_says_so(self):
        server = _serve._Server(cilbench.Method, pipe())
        server._method = cilbench.Method(None, None)
        facts = {"classes": 4, "tasks": 2, "domain_incremental": False}
        self.assertEqual(server.answer({"check": {"scenario": facts}}, False), "done")
        for call, text in [
            ({"check": {"scenario": facts, "strict": True}}, "the call 'check' has the key 'strict'"),
            ({"check": {"scenario": {**facts, "names": []}}}, "a scenario has the key 'names'"),
        ]:
            failed = server.answer(call, False)["failed"]
            self.assertEqual(failed["class"], "unsupported")
            self.assertIn(text, failed["text"])

    def test_a_plan_has_all_that_it_may_say(self):
        class Steps(cilbench.Method):
            def plan(self, task):
                return cilbench.Plan(1, 8, "test", drop_last=True, steps=5, test_batch=3)

        server = _serve._Server(Steps, pipe())
        server._method = Steps(None, None)
        task = {"index": 0, "tasks": 1, "classes": [0], "first_class": 0, "class_names": ["a"], "train_images": 3}
        plan = {"epochs": 1, "batch_size": 8, "view": "test", "drop_last": True, "steps": 5, "test_batch": 3}
        self.assertEqual(server.answer({"plan": {"task": task}}, False), {"plan": plan})


class Arrays(unittest.TestCase):
    def setUp(self):
        # As where a method does not import numpy.
        without = unittest.mock.patch.dict(sys.modules)
        without.start()
        self.addCleanup(without.stop)
        sys.modules.pop("numpy", None)

    def test_rows_of_an_array_share_its_memory(self):
        numbers = plain("f32", (2, 3), [1, 2, 3, 4, 5, 6])
        self.assertEqual((len(numbers), len(numbers[0]), numbers[-1][2]), (2, 3, 6.0))
        numbers[1].flat[0] = 9
        self.assertEqual([row.tolist() for row in numbers], [[1, 2, 3], [9, 5, 6]])
        self.assertEqual(plain("i64", [2], [3, 4])[1], 4)
        with self.assertRaisesRegex(IndexError, "index 2 of an array of 2"):
            numbers[2]
        with self.assertRaisesRegex(TypeError, "one number as its index"):
            numbers[0, 1]

    def test_a_copy_has_memory_of_its_own(self):
        numbers = plain("f16", [2], [0.5, 1.5])
        copy = numbers.copy()
        copy.flat[:] = bytes(4)
        self.assertEqual((numbers.tolist(), copy.tolist()), ([0.5, 1.5], [0.0, 0.0]))

    def test_what_a_method_returns_becomes_an_array(self):
        for value, element, shape, numbers in [
            ([[1.0, 2], [3, 4]], "f64", (2, 2), [[1, 2], [3, 4]]),
            ([1, 2**40], "i64", (2,), [1, 2**40]),
            ([True, False], "u8", (2,), [1, 0]),
            (2.5, "f64", (), 2.5),
            ([], "f64", (0,), []),
            ([[], []], "f64", (2, 0), [[], []]),
            (array.array("f", [1, 2]), "f32", (2,), [1, 2]),
            (array.array("i", [1, -2]), "i64", (2,), [1, -2]),
            (memoryview(bytes(range(6))).cast("B", (2, 3)), "u8", (2, 3), [[0, 1, 2], [3, 4, 5]]),
            ([plain("f32", [2], [1, 2]), (3, 4)], "f64", (2, 2), [[1, 2], [3, 4]]),
        ]:
            made = _arrays.as_array(value, "x")
            self.assertEqual((made.element, made.shape, made.tolist()), (element, shape, numbers), value)

    def test_what_is_no_array_is_refused_by_name(self):
        for value, expected in [
            ([1j], "state 'm': an array of type complex cannot be sent"),
            ([None], "state 'm': an array of type NoneType"),
            ("text", "state 'm': an array of type str"),
            ([[1, 2], [3]], "state 'm': nested lists of unequal lengths"),
            ([[1, 2], 3], "state 'm': nested lists of unequal lengths"),
        ]:
            with self.assertRaisesRegex(TypeError, expected):
                _arrays.as_array(value, "state 'm'")

    def test_a_type_that_python_does_not_have_is_refused_with_what_to_do(self):
        with self.assertRaisesRegex(TypeError, "bf16.*--dtype f32"):
            _arrays.revive({"element": "bf16", "shape": [1], "offset": 0}, bytes(2))

    def test_a_method_that_wants_numpy_where_there_is_none_is_told_so(self):
        script = "import sys; sys.modules['numpy'] = None\nfrom cilbench import _arrays; _arrays.require_numpy()"
        where = os.path.join(os.path.dirname(__file__), "..")
        ended = subprocess.run([sys.executable, "-c", script], cwd=where, capture_output=True, text=True)
        self.assertIn("numpy is not installed for", ended.stderr)
        self.assertIn('set `arrays = "plain"`', ended.stderr)


class Parameters(unittest.TestCase):
    def test_types_defaults_docs_and_choices(self):
        @dataclasses.dataclass
        class Config:
            rate: float = cilbench.parameter(1, "Step size.")
            kind: Literal["a", "b"] = cilbench.parameter("a", "Which.")
            sizes: list[int] = cilbench.parameter([1, 2], "Sizes.")

        rate, kind, sizes = parameters.describe(Config)
        self.assertEqual(rate, {"key": "rate", "default": 1.0, "doc": "Step size."})
        self.assertEqual((kind["default"], kind["doc"]), ("a", "Which. One of: a, b."))
        self.assertEqual(sizes["default"], [1, 2])
        self.assertIsInstance(parameters.build(Config, {"rate": 2}).rate, float)
        for key, value, expected in [("kind", "c", "one of a, b"), ("sizes", [1, "x"], "sizes.1. = 'x': expected int"), ("rate", True, "float")]:
            with self.assertRaisesRegex(cilbench.UsageError, expected):
                parameters.build(Config, {key: value})

    def test_a_type_that_the_command_line_cannot_give_is_named(self):
        @dataclasses.dataclass
        class Config:
            when: complex = cilbench.parameter(1j, "When.")

        with self.assertRaisesRegex(TypeError, "Config.when"):
            parameters.describe(Config)


class Failures(unittest.TestCase):
    def test_the_author_s_own_line_is_named_and_not_one_in_a_library(self):
        try:
            os.there_is_no_such_function
        except AttributeError as error:
            text = _serve._failure(error)["text"]
        self.assertRegex(text, r"there_is_no_such_function.* \(test_wire\.py, line \d+\)$")


class States(unittest.TestCase):
    def test_an_unmarked_array_is_refused_by_name(self):
        self.assertEqual(state.pack({"m": cilbench.statistic([1.0])})["m"]["kind"], "statistic")
        with self.assertRaisesRegex(TypeError, "'mean' is not marked"):
            state.pack({"mean": [0.0, 0.0]})
        with self.assertRaisesRegex(ValueError, "begin with a question mark"):
            state.pack({"?mean": cilbench.statistic([1.0])})

    def test_a_state_comes_back_as_copies(self):
        sent = plain("f32", [2], [1, 2])
        back = state.unpack({"m": {"kind": "trained", "value": sent}}, plain=True)["m"]
        back.flat[0] = 5
        self.assertEqual((back.tolist(), sent.tolist()), ([5, 2], [1, 2]))


if __name__ == "__main__":
    unittest.main()
