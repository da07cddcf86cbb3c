"""Small pictures are enlarged as the real processor does it: `python -m unittest` in this folder, with what is shipped."""

import random
import unittest
from pathlib import Path

import numpy as np
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

import processing
import speech
from model import TILE, TOKENS, load_tokenizer
from pages import crops, fonts
from pages.canvas import Canvas
from speech import READ, Turn

BASE = Path(__file__).parent.parent / "builtin" / "base"


class Small(unittest.TestCase):
    def test_a_picture_of_one_tile_becomes_four_and_an_overview(self) -> None:
        canvas = crops.tile(random.Random(1), grey=False)
        tiles, rows, columns = processing.split(canvas)
        self.assertEqual((rows, columns, len(tiles)), (2, 2, 5))
        processor = Idefics3ImageProcessorPil.from_pretrained(str(BASE), size={"longest_edge": 2 * TILE})
        theirs = processor(canvas.image.convert("RGB"), return_tensors="np", do_rescale=False, do_normalize=False)["pixel_values"][0]
        for ours, real in zip(tiles, theirs, strict=True):
            np.testing.assert_array_equal(np.asarray(ours.image.convert("RGB")), real.transpose(1, 2, 0))

    def test_a_page_is_as_large_as_ever(self) -> None:
        self.assertEqual(processing.sizes(512, 400)[0], (1024, 800))
        self.assertEqual(processing.sizes(3000, 1500), ((1024, 512), (1024, 512)))

    def test_words_stand_in_the_tile_that_they_are_enlarged_into(self) -> None:
        canvas = Canvas.blank(TILE, TILE)
        font = fonts.font(fonts.choose(random.Random(1), False)[0], 20)
        canvas.text(4, 30, "7", font)
        canvas.text(140, 200, "8", font)
        places = speech.page_sheet(load_tokenizer(BASE), canvas, [Turn(READ, "7\n8", canvas.words)])["turns"][0]["places"]
        # A space, 7, the end of the line, 8: 23 px from the top is the second row of tokens of the first tile, 193 px the fifth of the fourth.
        self.assertEqual([place // TOKENS for place in places[:4]], [0, 0, 3, 3])
        self.assertEqual([place % TOKENS // 8 for place in places[:4]], [1, 1, 4, 4])


if __name__ == "__main__":
    unittest.main()
