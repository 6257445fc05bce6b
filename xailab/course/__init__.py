'''Exercises, quizzes and progress of the lessons, and the build that makes notebooks of them.

In a lesson:
    from xailab.course import check, hint, predict, progress, quiz, reveal, tick

    check("backprop.softmax", softmax)            # tests the learner's answer, names the mistake
    hint("backprop.softmax")                      # the next of up to three steps
    predict("saliency.saturation", guess)         # notes a guess before the cell that shows it
    reveal("saliency.saturation", actual)         # the guess beside what came
    check("cam.radiology", text)                  # free text: the model answer and points to tick
    tick("cam.radiology", 1, 3)                   # these points my text makes
    quiz("backprop.q_relu")                       # one question, feedback for every choice
    concept_inventory("before")                   # 20 questions on what is often misunderstood
    progress()                                    # this lesson, from a file on this machine

In `xailab/course/exercises/TOPIC.py`, for the lesson of this name:
    from xailab.course import Mistake, criticize, exercise, expect_close, question

    @exercise("backprop.softmax", kind="code", points=2, minutes=5, difficulty=1,
              hints=("Which two steps turn scores into shares?", "exp, then divide by ...", "..."))
    def softmax(answer):
        """Rows sum to one and large logits survive."""
        got = answer(np.array([[0.0, np.log(3.0)]]))
        expect_close(got, [[0.25, 0.75]], "softmax of [[0, ln 3]]",
                     known={"you summed over rows (axis 0), not classes (1)": [[1, 1]]})

    criticize("cam.radiology", points=3, minutes=8, model="The smooth outline is drawn by ...",
              rubric={"resolution": "The map has 7 x 7 cells.", "one picture": "...", ...})

    question("backprop.q_relu", "What does ReLU pass back where its input is negative?",
             choices={"0": "Right: ...", "1": "That is its slope where the input is positive."},
             right="0")

A check function gets the answer, returns None (or a remark to show) when it is right, and raises
`Mistake("what is wrong, in words")` when not. `XAILAB_STRICT=1` turns a failed or missing answer
into an error (solutions, grading); without it a notebook always runs on. No machine scores free
text.

Nothing here imports torch.
'''

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
