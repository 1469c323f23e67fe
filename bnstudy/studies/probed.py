"""The columns that probes add to a table: what stand-ins for it have."""

SHIFTS = [f"{name}_{severity}" for name in ("contrast", "brightness", "noise", "blur", "jpeg")
          for severity in range(1, 6)]  # fmt: skip
FACTORS = (0.25, 0.5, 1, 2, 5, 10)  # test lengths of the probe `lengths`, in training lengths
STREAMS = ("mixed", "single", "sorted")
STREAMED = [*(f"{shift}_{what}" for shift in ("noise", "blur")
              for what in ("error", "late_error", "share")), "error/01", "error/02"]  # fmt: skip
# probe -> the columns it adds for every network, and those only for networks with batch statistics;
# of a course over checkpoints or time steps some that any run has
PROBED: dict[str, tuple[list[str], list[str]]] = {
    "adaptation": ([f"{s}_{w}_{c}" for s in STREAMS for w in ("source", "tent") for c in STREAMED],
                   [f"{s}_batch_{c}" for s in STREAMS for c in STREAMED]),
    "averaged_weights": ([], ["averaged_statistics_error", "update_bn_error"]),
    "copies": (["corrupted_error"], ["corrupted_error_own"]),
    "corruptions": (
        [f"{shift}_{what}" for shift in SHIFTS for what in ("error", "ece")],
        [f"{shift}_{what}_batch{size}" for shift in SHIFTS for what in ("error", "ece")
         for size in ((4, 16, 64, 256) if shift.endswith("3") else (256,))]
        + [f"{shift}_error_prior{n}" for shift in SHIFTS if shift.endswith("3") for n in (16, 64)],
    ),
    "evaluation_batch": (
        [],
        [f"batch_{2**i}_error" for i in range(1, 9)]
        + [f"prior_{4**i}_error_at_{size}" for i in range(5) for size in (1, 4)]
        + [f"alpha_{alpha}_error" for alpha in (0.1, 0.3, 0.5, 0.7, 0.9)],
    ),
    "checkpoints": (
        [],
        ["ema_gap_error", "late_gap_error", "log_sd_ratio", "least_train_loss", "running_x",
         "running_y", "cloud_x/00", "cloud_y/00"]
        + [f"{name}/{i:02d}" for i in range(1, 9)
           for name in ("ema_error", "precise_error", "batch_error", "corrected_error", "lag")],
    ),
    "precise_samples": (
        [],
        ["precise_small_error", "mean_of_batches_error", "corrected_error"]
        + [f"precise_{n}_error" for n in (64, 256, 1024)],
    ),
    "affine": (
        [f"{name}/{i:02d}" for i in (1, 2)
         for name in ("gamma_mean", "gamma_sd", "beta_mean", "beta_sd", "first_gamma")],
        [],
    ),
    "effective_m": ([], ["effective_m", "effective_m/00"]),
    "renorm": ([], ["log_r/01", "d/01"]),
    "statistics_gap": ([], ["mean_gap", "mean_gap/01", "variance_gap", "variance_gap/01"]),
    "landscape": (
        [f"{name}{unit}/{k:02d}" for k in (1, 2) for unit in ("", "_relative")
         for name in ("loss_range", "gradient_range", "smoothness")],
        [],
    ),
    "covariate_shift": (["shift_norm/01", "shift_norm/02", "shift_cosine/01", "shift_cosine/02"],
                        []),
    "logits": ([f"logit_{i}/{k:02d}" for i in range(1, 9) for k in (1, 2)], []),
    "composition": ([], ["composition_error", "composition_left_out"]),
    "forgetting": (
        [f"{name}{way}" for name in ("forgetting", "old_tasks_error", "learned_error")
         for way in ("", "_within")],
        [f"{name}{way}" for name in ("statistics_loss", "old_tasks_error_precise")
         for way in ("", "_within")],
    ),
    "lengths": (["length"], ["length_shared", "length_truncated", "length_batch"]),
    "shared_statistics": ([], ["test_loss_shared", "test_error_shared"]),
    "step_statistics": ([], [f"{n}/{t:04d}" for n in ("behind", "drift") for t in (1, 3, 4, 6)]),
    "gradient_norm": (["gradient_slope", "gradient/0001"], []),
    "activation_memory": (["activation_bytes", "normalized_bytes"], []),
    "layer_gradients": (["gradient_growth", "layer_gradient/01", "layer_gradient/02"], []),
    "activation_moments": (
        [f"{what}/{i:02d}" for i in (1, 2)
         for what in ("activation_mean", "activation_sd", "saturated")],
        [],
    ),
    "branch_variance": (["branch_share/01", "branch_share/02"], []),
    "loss_course": ([f"loss_course/{i:02d}" for i in range(1, 21)], []),
    "steps_to_loss": ([f"steps_to_{level}" for level in ("1", "0.5", "0.25", "0.1")], []),
    "fit": (["fit_loss", "fit_error"], []),
    "step_time": (
        ["step_seconds", "step_ratio", "predict_seconds", "predict_ratio", "normalized_channels"],
        ["folded_ratio"],
    ),
    "companions": (["companion_change", "contrast_change"], []),
    "photographs": (["psnr/camera", "ssim/camera"], []),
    "baselines": (["nlm_psnr", "input_psnr"], []),
    "whole_statistics": ([], ["whole_psnr"]),
    "blotches": (["blotches"], ["blotches_precise", "blotches_image"]),
    "intensity": (
        [f"{what}_{place}" for what in ("psnr", "offset")
         for place in ("contrast/025", "contrast/050", "contrast/075", "contrast/100",
                       "mean/025", "mean/050", "mean/075")],
        [],
    ),
}  # fmt: skip
