"""Frames, hyper-parameters and states, without a harness: `python3 -m unittest discover -s plugins/python/tests`."""

import dataclasses
import os
import sys
import threading
import unittest
from typing import Literal

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

import cilbench
import numpy as np
from cilbench import _serve, _wire, parameters, state


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


class Frames(unittest.TestCase):
    def test_arrays_of_every_type_come_back_bit_for_bit(self):
        rng = np.random.default_rng(0)
        for name, code in _wire.ELEMENTS.items():
            for shape in [(), (0, 3), (5,), (2, 3, 7)]:
                array = np.asarray(rng.random(shape) * 200).astype(code)
                back = there_and_back({"a": array, "list": [array, 1, None, "x"]})
                for received in (back["a"], back["list"][0]):
                    self.assertEqual((received.dtype, received.shape), (np.dtype(code), shape), name)
                    self.assertEqual(received.tobytes(), array.tobytes())
                self.assertEqual(back["list"][1:], [1, None, "x"])

    def test_a_large_strided_array(self):
        array = np.arange(1_200_000, dtype=np.float32).reshape(1200, 1000).T
        np.testing.assert_array_equal(there_and_back([array])[0], array)

    def test_received_arrays_can_be_written_to(self):
        there_and_back(np.zeros(3))[:] = 1

    def test_other_types_are_converted_or_refused_by_name(self):
        self.assertEqual(_wire.as_array(np.array([True]), "x").dtype, np.uint8)
        self.assertEqual(_wire.as_array(np.int32([1]), "x").dtype, np.int64)
        with self.assertRaisesRegex(TypeError, "state 'm'.*complex128"):
            _wire.as_array(np.array([1j]), "state 'm'")

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
            np.there_is_no_such_function
        except AttributeError as error:
            text = _serve._failure(error)["text"]
        self.assertRegex(text, r"there_is_no_such_function.* \(test_wire\.py, line \d+\)$")


class States(unittest.TestCase):
    def test_an_unmarked_array_is_refused_by_name(self):
        self.assertEqual(state.pack({"m": cilbench.statistic([1.0])})["m"]["kind"], "statistic")
        with self.assertRaisesRegex(TypeError, "'mean' is not marked"):
            state.pack({"mean": np.zeros(2)})
        with self.assertRaisesRegex(ValueError, "begin with a question mark"):
            state.pack({"?mean": cilbench.statistic([1.0])})


if __name__ == "__main__":
    unittest.main()
