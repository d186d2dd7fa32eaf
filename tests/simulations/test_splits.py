from bench.simulations.splits import simulate


def test_small_classes_have_their_share_of_test_images_and_no_image_moves():
    rates = simulate(4, 10, 20, seed=1)
    assert rates["few"] == 0
    assert rates["moved"] == 0
    assert rates["few_by_hash"] > 0.05  # the setting is one where the hash alone fails
