"""Find which heads of a vision-language model never look across images, and skip that work."""

from photomask.attention import calibrate, convert, encode, plan
from photomask.zoo import picture_questions

model, processor = picture_questions.load_vision_language()

# One dense pass a prompt; no weights change, here or later.
statistics = calibrate(model, processor, picture_questions.calibration_prompts(8))

# The budget is the one knob: the share of the heads' output that may be lost.
chosen = plan(statistics, budget=0.1)
print(chosen)

sparse = convert(model, chosen)  # shares every tensor with the model
for question in picture_questions.held_out_prompts(1, pictures=8):
    inputs = encode(processor, question).inputs
    answer = sparse.generate(**inputs, max_new_tokens=1, do_sample=False)[:, -1:]
    print(f"{question.content[-1]}  {processor.batch_decode(answer)[0]} ({question.answer})")
