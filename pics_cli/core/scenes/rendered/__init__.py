"""Scenes of 3D models, path traced: photographs' light, with the truth that only a maker of scenes knows.

How a scene comes about:

1. `catalogue` finds models, panoramas (HDRI) and photographs of a folder, and says which of the pools train, val and
   test each is in; `models` reads a model, `heights` finds its level surface and its hollow; `material` examines all of
   them once and keeps what it learnt.
2. `plan.plan_scene` decides everything in numbers, a `spec.RenderedPlan`, drawing again until all objects are visible
   enough: `lights` (panorama, lamp, exposure), and `layout`, which puts the models on the ground, on and in each other;
   `placement` measures where they come to rest, whether they collide, and what the camera sees of them.
3. `render.render_scene` renders the plan by `mitsuba_scene` and `textures`: the picture, the same without the objects,
   masks with and without hidden parts, and each object once more, turned a little and in another light.

Relations, camera and the result's format are those of drawn scenes. Everything is a function of (settings, raw
material, pool, seed, index) and of the versions of Mitsuba and the denoiser.
"""
